"""What the kinds show of results that the version before panels wrote (`old_results`)."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from husai_core import kinds, panels
from husai_core.panels import PANELS, to_csv

OLD = {path.stem: path for path in sorted(Path(__file__).with_name("old_results").glob("*.json"))}
SENTENCES = {
    "train.activations": "169 rows at 1 hook (blocks.0.hook_resid_post) of width 32",
    "train.sae": "3 SAEs (topk k 8) explain 0.958 (interval unknown) of the variance of held-out rows",
    "train.transformer": "The network adds 70.6 % of the held-out pairs right. The leak test passed",
}


def document(kind: str) -> dict[str, Any]:
    """A stored result."""
    stored: dict[str, Any] = json.loads(OLD[kind].read_bytes())
    return stored


def headline(shown: list[panels.AnyPanel]) -> panels.Headline:
    """The panel that comes first."""
    assert isinstance(shown[0], panels.Headline)
    return shown[0]


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_result_of_an_earlier_version_is_shown_under_its_key_sentence(kind: str) -> None:
    shown = kinds.get(kind).panels(document(kind))
    assert SENTENCES[kind] in headline(shown).text
    assert PANELS.validate_json(PANELS.dump_json(shown)) == shown
    for panel in shown:
        rows = list(csv.reader(io.StringIO(to_csv(panel))))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        assert not {"nan", "inf"} & {cell for row in rows for cell in row}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_broken_result_still_shows_its_figures(kind: str) -> None:
    shown = kinds.get(kind).panels(document(kind) | {"a figure of another version": 0.5})
    cells = [row for panel in shown if isinstance(panel, panels.Table) for row in panel.rows]
    assert ["a figure of another version", 0.5] in cells


def test_showing_a_result_loads_no_numerical_library() -> None:
    program = """
import json, sys
from husai_core import kinds
for kind, document in json.load(sys.stdin).items():
    kinds.get(kind).panels(document)
print(sorted({"torch", "scipy", "numpy", "transformer_lens"} & sys.modules.keys()))
"""
    documents = json.dumps({kind: document(kind) for kind in OLD})
    ran = subprocess.run([sys.executable, "-c", program], input=documents, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
