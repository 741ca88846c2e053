"""The hashed locks of the images agree with the plain lock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(path: Path) -> dict[str, str]:
    lines = (line.split()[0] for line in path.read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("image", ["api", "worker"])
def test_a_hashed_lock_pins_the_versions_of_the_plain_one(image: str) -> None:
    plain, hashed = pins(ROOT / "requirements.lock"), pins(ROOT / "deploy" / f"{image}.lock")
    assert hashed.items() <= plain.items()
    assert "sqlalchemy" in hashed
    assert "torch" not in hashed
    assert ("scipy" in hashed) is (image == "worker")


@pytest.mark.parametrize("image", ["api", "worker"])
def test_every_line_of_a_hashed_lock_has_a_hash(image: str) -> None:
    lines = (ROOT / "deploy" / f"{image}.lock").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+", line)] == []
