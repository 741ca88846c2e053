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


def test_nothing_is_advised_under_a_fail() -> None:
    assert advice("fail", RULES, ["stress.one"]) == []
