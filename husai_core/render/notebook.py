"""Panels in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from husai_core.panels import AnyPanel
from husai_core.render.html import fragment
from husai_core.render.style import STYLE
from husai_core.render.svg import tag


@dataclass(frozen=True)
class Shown:
    """Panels that a notebook shows as they look on a job's page."""

    panels: Sequence[AnyPanel]

    def _repr_html_(self) -> str:
        """HTML that brings its own style sheet."""
        return str(tag("div", tag("style", Markup(STYLE)), fragment(self.panels), class_="husai"))
