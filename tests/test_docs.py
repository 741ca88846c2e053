"""The pages in `docs` name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATH = re.compile(r"`((?:husai_core|services|worker|api|husai|migrations|docs|tests|benchmarks|tools)/[\w./-]+)`")
LINK = re.compile(r"\]\(([\w./-]+\.md)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    paths = [ROOT / path for path in PATH.findall(text)] + [page.parent / link for link in LINK.findall(text)]
    assert [str(path) for path in paths if not path.exists()] == []
