from husai_core.release.advice import advice

RULES = [
    {"name": "stability", "evidence": "stress.one", "settle": "run stress.one"},
    {"name": "reconstruction", "evidence": "stress.one", "settle": "run stress.one"},
    {"name": "external", "evidence": "benchmark.two", "settle": "run benchmark.two"},
    {"name": "ood", "evidence": "stress.three", "settle": None},
]


def test_only_what_can_be_done_here_is_advised() -> None:
    assert advice("inconclusive", RULES, ["stress.one", "stress.three"]) == {
        "run stress.one": ["stability", "reconstruction"],
        "not in this version: it has no job kind benchmark.two": ["external"],
    }


def test_nothing_settles_a_fail() -> None:
    assert advice("fail", RULES, ["stress.one"]) == {}
