"""The style sheet of the pages leaves figures alone, which bring their own."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_no_rule_of_the_pages_reaches_into_figures() -> None:
    sheet = (ROOT / "api/static/pages.css").read_text()
    alone = set(re.findall(r"(?m)^\s*\.([a-z][\w-]*)\s*[,{]", sheet))
    sources = "".join(path.read_text() for path in (ROOT / "husai_core/render").glob("*.py"))
    in_figures = set(re.findall(r'class_=f?"([a-z]+)', sources))
    assert len(in_figures) > 5
    assert alone & in_figures <= {"husai"}
