"""The errors that a user reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from husai_core.assets import Asset


class UserError(Exception):
    """A mistake of the user, or a request that cannot be met; its message is one line for the user."""


class MissingAssets(UserError):
    """Something that a job reads is not on this machine yet: the job can run once `assets` are here."""

    def __init__(self, message: str, assets: Sequence[Asset]) -> None:
        super().__init__(message)
        self.assets = list(assets)
