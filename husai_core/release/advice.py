"""What a decision says to people: its rules' verdicts in words, and what would decide those that are undecided."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

RULE_WORDS: Mapping[str, str] = {"pass": "met", "fail": "not met", "inconclusive": "undecided"}
"""What is said of a rule. A decision is `pass`, `fail` or `inconclusive`; so are rules where they are stored."""


def lacking(missing: Mapping[str, Any]) -> str:
    """Why a check did not measure something, and what that would take."""
    return f"{str(missing['reason']).rstrip('.')}. It would take {missing['would_take']}"


def advice(
    verdict: str,
    rules: Iterable[Mapping[str, Any]],
    kinds: Collection[str],
    not_measured: Iterable[Mapping[str, Any]] = (),
) -> list[str]:
    """Sentences that say what would decide the rules of a decision, each way once with the rules' names.

    Nothing is advised under `fail`, which further evidence would not change. A rule about a job kind that is not among
    `kinds` cannot be decided with this version, and that is what is said of it.

    Args:
        not_measured: what the check that asked for the decision could not measure, by `kind`, with `reason` and
            `would_take`. To run such a kind is no advice, so what it lacks is said instead.
    """
    lacks = {str(missing["kind"]): lacking(missing) for missing in not_measured}
    ways: dict[tuple[str, str], list[str]] = {}
    for rule in rules if verdict != "fail" else ():
        if rule.get("settle"):
            kind = str(rule.get("evidence"))
            missing = ("This version cannot decide", f"it has no job kind {kind}")
            unmeasured = lacks.get(kind) if rule.get("evidence_digest") is None else None
            way = ("To decide", unmeasured or str(rule["settle"])) if kind in kinds else missing
            ways.setdefault(way, []).append(str(rule.get("name")))
    return [f"{start} {', '.join(names)}: {end}." for (start, end), names in ways.items()]
