from husai_core.release.advice import advice

RULES = [
    {"name": "stability", "evidence": "stress.one", "settle": "run stress.one"},
    {"name": "reconstruction", "evidence": "stress.one", "settle": "run stress.one"},
    {"name": "external", "evidence": "benchmark.two", "settle": "run benchmark.two"},
    {"name": "ood", "evidence": "stress.three", "settle": None},
]


def test_only_what_can_be_done_here_is_advised() -> None:
    assert advice("inconclusive", RULES, ["stress.one", "stress.three"]) == [
        "To decide stability, reconstruction: run stress.one.",
        "This version cannot decide external: it has no job kind benchmark.two.",
    ]


def test_what_a_check_could_not_measure_is_not_advised_but_said() -> None:
    lacks = [{"kind": "stress.one", "reason": "one SAE is there.", "would_take": "siblings"}]
    said = "To decide stability, reconstruction: one SAE is there. It would take siblings."
    assert advice("inconclusive", RULES, ["stress.one"], lacks)[0] == said
    measured = [{**rule, "evidence_digest": "0" * 64} for rule in RULES]
    assert advice("inconclusive", measured, ["stress.one"], lacks)[0].endswith(": run stress.one.")


def test_nothing_is_advised_under_a_fail() -> None:
    assert advice("fail", RULES, ["stress.one"]) == []
