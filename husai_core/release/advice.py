"""What to do about a decision that is not settled."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any


def advice(verdict: str, rules: Iterable[Mapping[str, Any]], kinds: Collection[str]) -> dict[str, list[str]]:
    """What would settle the rules of a decision, each way with their names.

    Nothing is advised under `fail`, which further evidence would not change. A rule about a job kind that is not among
    `kinds` cannot be settled with this version, and that is what is said of it.
    """
    ways: dict[str, list[str]] = {}
    for rule in rules if verdict != "fail" else ():
        if rule.get("settle"):
            kind = str(rule.get("evidence"))
            way = rule["settle"] if kind in kinds else f"not in this version: it has no job kind {kind}"
            ways.setdefault(str(way), []).append(str(rule.get("name")))
    return ways
