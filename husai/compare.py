"""Did a repetition give the same artifacts? Digest by digest, and field by field where a file holds run-dependent
fields; a study is compared child by child."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from husai.errors import Exit
from husai.models import Job

if TYPE_CHECKING:
    from husai.client import Husai

AROUND = ("capability", "code", "determinism", "digest")
"""Fields of a manifest that tell of its surroundings: they excuse a difference, but are none."""
TIMES = ("produced_at",)
"""Fields, wherever they occur, that hold the instant at which an artifact was made."""
PRODUCED = "produced"
"""How the header of a column of such instants begins."""
ORDER = {"result": 1, "figures": 2, "tables": 2, "manifest": 3}
Verdict = Literal["equal", "different", "missing"]


@dataclass(frozen=True)
class Row:
    """One artifact of the original beside the one of the repetition."""

    job: str
    output: str
    first: str | None
    second: str | None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All rows, and in what the two surroundings differ (hardware, libraries, code)."""

    rows: list[Row]
    surroundings: list[str]

    @property
    def other_version(self) -> bool:
        """True when the surroundings differ in nothing but the version of the code."""
        fields = {path.partition(".")[0] for path in self.surroundings}
        return bool(fields) and fields <= {"code", "digest"}

    @property
    def exit_code(self) -> Exit:
        """0 equal; 4 different in other surroundings; 1 different in the same."""
        if all(row.verdict == "equal" for row in self.rows):
            return Exit.OK
        return Exit.INCONCLUSIVE if self.surroundings else Exit.FAIL


def compare(husai: Husai, first: Job, second: Job, other: Husai | None = None) -> Comparison:
    """Compare every artifact of two jobs and of their children; the second may be another service's."""
    comparer = Comparer(husai, other or husai)
    rows = list(comparer.jobs(first, second, first.name or first.kind))
    return Comparison(rows, sorted(comparer.surroundings))


class Comparer:
    """Compares artifacts and remembers which were equal, so that documents that name one of them agree as well."""

    def __init__(self, husai: Husai, other: Husai) -> None:
        self._sides = husai, other
        self._pairs: dict[str, str] = {}
        self.surroundings: set[str] = set()

    def jobs(self, first: Job, second: Job, path: str) -> Iterator[Row]:
        """The rows of two jobs: those of their children, then their own."""
        yield from self._children(first, second, path)
        if first.state != second.state:
            yield Row(path, "state", None, None, "different", f"{first.state}, then {second.why}")
        for name in sorted({*first.outputs, *second.outputs}, key=lambda name: (ORDER.get(name, 0), name)):
            pairs = list(zip_longest(first.outputs.get(name, []), second.outputs.get(name, [])))
            for position, (left, right) in enumerate(pairs):
                label = f"{name}[{position}]" if len(pairs) > 1 else name
                yield self._row(path, label, left, right)

    def _children(self, first: Job, second: Job, path: str) -> Iterator[Row]:
        """The rows of the children. None where the first job shows none, as when it follows somebody else's study."""
        lefts, rights = (
            {child.name or child.id: child for child in side.children(job)}
            for side, job in zip(self._sides, (first, second), strict=True)
        )
        for name in [*lefts, *(name for name in rights if name not in lefts)] if lefts else ():
            place = f"{path}/{name}"
            if name in lefts and name in rights:
                yield from self.jobs(lefts[name], rights[name], place)
            else:
                where = "first" if name in lefts else "second"
                yield Row(place, "job", None, None, "missing", f"only in the {where}")

    def _row(self, path: str, output: str, first: str | None, second: str | None) -> Row:
        if first is None or second is None:
            return Row(path, output, first, second, "missing", f"only in the {'first' if first else 'second'}")
        verdict, note = self._judge(first, second)
        if verdict == "equal":
            self._pairs[first] = second
        return Row(path, output, first, second, verdict, note)

    def _judge(self, first: str, second: str) -> tuple[Verdict, str]:
        if first == second:
            return "equal", ""
        sides = list(zip(self._sides, (first, second), strict=True))
        texts, others = (_texts(side, digest) for side, digest in sides)
        if texts is not None and others is not None and lasting(texts, self._pairs) == lasting(others, {}):
            return "equal", "but for run-dependent fields"
        lefts, rights = (_documents(side, digest) for side, digest in sides)
        if lefts is None or rights is None:
            return "different", self._files(first, second)
        if "manifest.json" in lefts and "manifest.json" in rights:
            left, right = ({k: files["manifest.json"].get(k) for k in AROUND} for files in (lefts, rights))
            self.surroundings |= set(differences(left, right, self._pairs))
        paths = list(differences(essence(lefts), essence(rights), self._pairs))
        if not paths:
            return "equal", "but for run-dependent fields"
        return "different", ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")

    def _files(self, first: str, second: str) -> str:
        """Names of the files that differ."""
        lefts, rights = (side.artifact(digest).files for side, digest in zip(self._sides, (first, second), strict=True))
        return ", ".join(name for name in sorted({*lefts, *rights}) if lefts.get(name) != rights.get(name))


def _documents(husai: Husai, digest: str) -> dict[str, Any] | None:
    """The parsed files of an artifact that is JSON throughout, else None."""
    files = husai.artifact(digest).files
    if not files or not all(name.endswith(".json") for name in files):
        return None
    return {name: json.loads(husai.read(entry["sha256"])) for name, entry in files.items()}


def _texts(husai: Husai, digest: str) -> dict[str, str] | None:
    """The files of an artifact of tables and figures, else None."""
    files = husai.artifact(digest).files
    if not files or not all(name.endswith((".csv", ".svg")) for name in files):
        return None
    return {name: husai.read(entry["sha256"]).decode() for name, entry in files.items()}


def lasting(texts: dict[str, str], pairs: dict[str, str]) -> dict[str, str]:
    """Tables and figures without instants, with the digests of the repetition in the place of those of the original."""
    return {name: _renamed(_timeless(text) if name.endswith(".csv") else text, pairs) for name, text in texts.items()}


def _timeless(table: str) -> str:
    """A table in CSV without its columns of instants."""
    rows = list(csv.reader(io.StringIO(table)))
    kept = [i for i, label in enumerate(rows[0] if rows else []) if not label.startswith(PRODUCED)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row[i] for i in kept] for row in rows)
    return text.getvalue()


def _renamed(text: str, pairs: dict[str, str]) -> str:
    """A text with each digest, in full or its first 12 digits, replaced by that of its equal."""
    for first, second in pairs.items():
        text = text.replace(first, second).replace(first[:12], second[:12])
    return text


def essence(documents: dict[str, Any]) -> dict[str, Any]:
    """What must repeat in the files of a JSON artifact."""
    from husai_core.manifest import comparable

    return {
        name: {k: v for k, v in comparable(document).items() if k not in AROUND}
        if name == "manifest.json"
        else document
        for name, document in documents.items()
    }


def differences(first: Any, second: Any, pairs: dict[str, str], path: str = "") -> Iterator[str]:
    """Paths at which two JSON values differ; `pairs` maps digests to the digests of their equals."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted({*first, *second} - {*TIMES}):
            here = f"{path}.{name}" if path else name
            if name in first and name in second:
                yield from differences(first[name], second[name], pairs, here)
            else:
                yield here
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for position, (left, right) in enumerate(zip(first, second, strict=True)):
            yield from differences(left, right, pairs, f"{path}[{position}]")
    elif (first != second or type(first) is not type(second)) and (
        not isinstance(first, str) or pairs.get(first) != second
    ):
        yield path or "all of it"
