"""The errors that a user reads, and which ones are the host's instead."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from husai_core.assets import Asset

HOST_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO}
)
"""Errors of the operating system that speak of a disk and not of the file that was asked for."""
NUMBER = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which is written in Rust, tells the number of an error."""


class UserError(Exception):
    """A mistake of the user, or a request that cannot be met; its message is one line for the user."""


class MissingAssets(UserError):
    """Something that a job reads is not on this machine yet: the job can run once `assets` are here."""

    def __init__(self, message: str, assets: Sequence[Asset]) -> None:
        super().__init__(message)
        self.assets = list(assets)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the last one first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def system_number(error: BaseException) -> int | None:
    """The operating system's number of one error. Words count only where a library has no other way to tell it."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError" and (written := NUMBER.search(str(error))):
        return int(written[1])
    return None


def is_host_fault(error: BaseException) -> bool:
    """True when a disk or a lack of memory is to blame, so that it must not be told as a mistake of the user."""
    return any(isinstance(cause, MemoryError) or system_number(cause) in HOST_ERRORS for cause in causes(error))
