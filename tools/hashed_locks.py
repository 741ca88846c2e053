"""Writes the hashed locks that the images install, from `requirements.lock` and the extras of `pyproject.toml`.

    python -m tools.hashed_locks

Run it in an environment that has everything in the lock. The hashes are those of the files for Linux on x86-64 and on
64-bit ARM, as pip reports them. torch is left out, since a host chooses its build of it (CPU, or one CUDA version);
the images install it first, at the version in the plain lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
IMAGES = {"api": ("api", "client"), "worker": ("worker",)}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux_2_5")
LEFT_OUT = "torch"


def needed(extras: tuple[str, ...]) -> set[str]:
    """Names of all distributions that some extras of this project pull in, but for torch and what only torch needs."""
    pending = [("husai", extra) for extra in ("", *extras)]
    seen = set[tuple[str, str]]()
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen or name == LEFT_OUT:
            continue
        seen.add((name, extra))
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                pending += [(wanted, inner) for inner in ("", *requirement.extras)]
    return {name for name, _ in seen} - {"husai"}


def pins() -> dict[str, str]:
    """Name to version of each line of the plain lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def hashes(requirements: list[str], machine: str) -> dict[str, str]:
    """SHA-256 of the file of each requirement for one kind of machine, by name; nothing is installed."""
    platforms = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--python-version=3.11", f"--target={folder}", f"--report={report}"]
        subprocess.run([*command, *platforms, *requirements], check=True)
        installs = json.loads(report.read_text())["install"]
    return {
        canonicalize_name(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in installs
    }


def main() -> None:
    """Write one lock for each image."""
    versions = pins()
    names_by_image = {image: needed(extras) & versions.keys() for image, extras in IMAGES.items()}
    requirements = [f"{name}=={versions[name]}" for name in sorted(set().union(*names_by_image.values()))]
    known = defaultdict[str, set[str]](set)
    for machine in ("x86_64", "aarch64"):
        for name, sha256 in hashes(requirements, machine).items():
            known[name].add(sha256)
    for image, names in names_by_image.items():
        lines = [
            " ".join([f"{name}=={versions[name]}", *(f"--hash=sha256:{sha256}" for sha256 in sorted(known[name]))])
            for name in sorted(names)
        ]
        (ROOT / "deploy" / f"{image}.lock").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
