"""The panels of a result as files: one CSV for each table, one SVG for each figure."""

import re
from collections.abc import Mapping, Sequence

from husai_core import panels
from husai_core.job import Job
from husai_core.panels import AnyPanel

DRAWN = (panels.Intervals, panels.Lines, panels.Scatter, panels.HeatMap, panels.Bars)
MOST_LETTERS = 60


def write(shown: Sequence[AnyPanel], job: Job) -> None:
    """Write the tables of a job into one artifact and its figures into another; nothing where there are none."""
    for output, type, files in (("tables", "table", tables(shown)), ("figures", "figure", figures(shown))):
        if files:
            directory = job.output(output, type)  # type: ignore[arg-type]
            for name, text in files.items():
                (directory / name).write_text(text, encoding="utf-8")


def tables(shown: Sequence[AnyPanel]) -> Mapping[str, str]:
    """Each table as CSV, by file name."""
    return {_name(i, p, "csv"): panels.to_csv(p) for i, p in enumerate(shown, 1) if isinstance(p, panels.Table)}


def figures(shown: Sequence[AnyPanel]) -> Mapping[str, str]:
    """Each figure as an SVG document with its style, by file name."""
    return {_name(i, p, "svg"): _document(p) for i, p in enumerate(shown, 1) if isinstance(p, DRAWN)}


def _document(panel: panels.Intervals | panels.Lines | panels.Scatter | panels.HeatMap | panels.Bars) -> str:
    from husai_core.render.figures import draw
    from husai_core.render.style import STYLE

    root, content = str(draw(panel)).split(">", 1)
    return f'{root} xmlns="http://www.w3.org/2000/svg" class="husai"><style>{STYLE}</style>{content}\n'


def _name(position: int, panel: AnyPanel, ending: str) -> str:
    """`03-explained-variance.svg`: the place among all panels, and the title in small letters."""
    words = re.sub(r"[^a-z0-9]+", "-", panel.title.lower()).strip("-")[:MOST_LETTERS].strip("-")
    return f"{position:02d}-{words or panel.type.replace('_', '-')}.{ending}"
