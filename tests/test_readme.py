"""The code in the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    """The Python code of the section about notebooks."""
    section = README.read_text().split("## In a notebook\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_notebooks_code_runs_and_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(blocks()) == 2
    for block in blocks():
        exec(compile(block, str(README), "exec"), names)
    excess = names["comparison"].statistics["pwmcc_excess"]
    assert excess.low > 0.05
    assert len(names["bank"].paths["saes"]) == 3
    assert (tmp_path / "my-sae" / "sae_weights.safetensors").is_file()
    assert len(blocks()[0].splitlines()) <= 12
