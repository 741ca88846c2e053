"""What comes with the package: a small language model, and text that it never saw. `make.py` makes both."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parent
HELD_OUT = HOME / "classics-held-out"
"""Books in the public domain that no built-in model was trained on, one file each."""


def models() -> list[str]:
    """Names of the built-in language models; each is a directory in the Hugging Face layout below `HOME`."""
    return sorted(path.parent.name for path in HOME.glob("*/config.json"))
