"""What the kinds declare that release policies may read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from husai_core import kinds
from husai_core.kinds.common import statistics
from husai_core.release.policy import StatisticRule, load
from husai_core.stability import pairwise

RESULTS = sorted((Path(__file__).parent / "old_results").glob("stress.*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_figures_of_a_result_are_declared_and_within_their_ranges(path: Path) -> None:
    declared = kinds.get(path.stem).statistics
    figures = json.loads(path.read_bytes())["statistics"]
    assert len(figures) > 5
    for name, figure in figures.items():
        low, high = declared[name]
        assert low <= figure["value"] <= high, name


def test_the_ranges_are_those_that_intervals_are_cut_to() -> None:
    assert set(statistics.OVERLAPS) == {*pairwise.DECODER, *pairwise.ACTIVATION}
    assert {name: pairwise.value_range(name) for name in statistics.OVERLAPS} == statistics.OVERLAPS


def test_what_shipped_policies_read_of_stresses_is_declared() -> None:
    declared = kinds.statistics()
    read = [rule for rule in load("internal").rules if isinstance(rule, StatisticRule) and rule.evidence in declared]
    assert [rule.statistic for rule in read if rule.statistic not in declared[rule.evidence]] == []
    assert len(read) >= 7


def test_they_can_be_read_without_torch() -> None:
    code = "import sys; from husai_core import kinds; kinds.statistics(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
