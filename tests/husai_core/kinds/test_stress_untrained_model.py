from __future__ import annotations

from pathlib import Path

import pytest

from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.kinds.stress.untrained_model import Result
from tests.husai_core.kinds.stress_job import network, run, siblings, stress

KIND = "stress.untrained_model"
Given = tuple[Artifact, Artifact, list[Artifact]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Given:
    home = tmp_path_factory.mktemp("untrained")
    transformer = network(home / "network")
    (activations,) = run("train.activations", home / "rows", transformer=[transformer])[1]
    return transformer, activations, siblings(home / "saes", activations)


def evidence(world: Given, home: Path, network_seed: int) -> Result:
    transformer, activations, saes = world
    result = stress(
        KIND, home, {"network_seed": network_seed}, saes=saes, activations=[activations], transformer=[transformer]
    )
    assert isinstance(result, Result)
    return result


def test_the_difference_is_paired_by_seed(world: Given, tmp_path: Path) -> None:
    measured = evidence(world, tmp_path, 1000)
    statistics = {name: estimate.value for name, estimate in measured.statistics.items()}
    for metric, difference in (("pwmcc", "trained_minus_untrained"), ("pw_mcc", "pw_mcc_trained_minus_untrained")):
        trained, untrained = statistics[f"{metric}_trained"], statistics[f"{metric}_untrained"]
        assert trained is not None
        assert untrained is not None
        assert statistics[difference] == pytest.approx(trained - untrained)
    assert measured.statistics["trained_minus_untrained"].low is not None
    assert measured.pairs != measured.untrained_pairs
    changes = {name: change.value or 0.0 for name, change in measured.changes.items()}
    assert changes["trained_minus_untrained"] == pytest.approx(changes["pwmcc_trained"] - changes["pwmcc_untrained"])
    assert measured.changes["trained_minus_untrained"].low is not None


def test_network_seed_decides_and_repeats(world: Given, tmp_path: Path) -> None:
    runs = [evidence(world, tmp_path / str(i), seed).model_dump_json() for i, seed in enumerate((1, 1, 2))]
    assert runs[0] == runs[1] != runs[2]


def test_refuses_rows_that_come_from_no_trained_network(world: Given, tmp_path: Path) -> None:
    transformer = world[0]
    (rows,) = run("train.activations", tmp_path / "rows", {"source": "untrained"}, transformer=[transformer])[1]
    saes = siblings(tmp_path / "saes", rows)
    with pytest.raises(UserError, match="not trained on this transformer"):
        stress(KIND, tmp_path, saes=saes, activations=[rows], transformer=[transformer])
