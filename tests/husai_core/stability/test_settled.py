import pytest

from husai_core.estimate import Estimate
from husai_core.stability.intervals import seed_mean
from husai_core.stability.settled import MARGINS, Settled, all_settled, margin, settled


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (-0.005, 0.009, "yes"),
        (-0.005, 0.01, "unknown"),
        (-0.02, 0.02, "unknown"),
        (0.002, 0.03, "unknown"),
        (0.01, 0.03, "no"),
        (-0.03, -0.015, "no"),
        (None, None, "unknown"),
    ],
)
def test_settled_is_an_equivalence(low: float | None, high: float | None, answer: Settled) -> None:
    assert settled(Estimate(value=0.0, low=low, high=high, n=3), 0.01) == answer


def test_one_figure_that_had_not_settled_decides() -> None:
    assert all_settled(["yes", "no", "unknown"]) == "no"
    assert all_settled(["yes", "unknown"]) == "unknown"
    assert all_settled(["yes", "yes"]) == "yes"
    assert all_settled([]) == "unknown"


def test_fewer_than_three_seeds_never_settle() -> None:
    assert [settled(seed_mean([0.0] * n).estimate(), 0.01) for n in (1, 2, 3)] == ["unknown", "unknown", "yes"]


def test_every_overlap_has_one_margin() -> None:
    assert margin("pwmcc") == margin("pw_mcc_alive") == MARGINS["overlap"]
    assert margin("explained_variance") == MARGINS["explained_variance"]
