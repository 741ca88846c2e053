"""Whether a training's figures had settled: how much the last doubling of its tokens changed them.

A learning rate that decays brings any run to rest, so coming to rest proves nothing. A training is measured at half
the tokens as well, by a copy that came to rest there, and *settled* is an equivalence: the interval over seeds of the
paired change, whole less half, lies inside a margin. It says that the last doubling changed little, not that more
tokens would bring nothing. Light: no torch, no scipy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from husai_core.estimate import Estimate

Settled = Literal["yes", "no", "unknown"]
MARGINS: Mapping[str, float] = {"explained_variance": 0.01, "overlap": 0.02}
"""Changes that count as none, of the explained variance and of every overlap of two dictionaries."""


def margin(figure: str) -> float:
    """The change of a figure that counts as none; every figure but the explained variance is an overlap."""
    return MARGINS.get(figure, MARGINS["overlap"])


def settled(change: Estimate, margin: float) -> Settled:
    """`yes` if the whole interval of a change lies inside ± margin, `no` if it lies outside, else `unknown`.

    Two one-sided tests at half the interval's error level (Schuirmann 1987), which is on the safe side. It is
    `unknown`, too, where the interval is.
    """
    if change.low is None or change.high is None:
        return "unknown"
    if -margin < change.low and change.high < margin:
        return "yes"
    return "no" if change.low >= margin or change.high <= -margin else "unknown"


def all_settled(figures: Iterable[Settled]) -> Settled:
    """`no` if one figure had not settled, `yes` if every one had and there is one, else `unknown`."""
    answers = set(figures)
    return "no" if "no" in answers else "yes" if answers == {"yes"} else "unknown"
