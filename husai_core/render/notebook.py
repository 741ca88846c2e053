"""Panels in a notebook, and as text in a plain interpreter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from husai_core.panels import AnyPanel
from husai_core.render.html import fragment
from husai_core.render.style import STYLE
from husai_core.render.svg import tag


@dataclass(frozen=True, repr=False)
class Shown:
    """Panels that a notebook shows as they look on a job's page, and a plain interpreter as they look in a terminal."""

    panels: Sequence[AnyPanel]

    def _repr_html_(self) -> str:
        """HTML that brings its own style sheet."""
        return str(tag("div", tag("style", Markup(STYLE)), fragment(self.panels), class_="husai"))

    def __repr__(self) -> str:
        from husai_core.render.text_panels import render

        open_panels = [panel for panel in self.panels if not panel.folded]
        return "\n".join(render(open_panels, shutil.get_terminal_size((100, 24)).columns, everything=True))
