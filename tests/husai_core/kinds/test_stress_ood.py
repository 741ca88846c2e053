from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

from husai_core.data.modular import pairs
from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.kinds.common.shifted_operands import Domains, _measured, _parts, _probe
from husai_core.kinds.stress.ood import Result, Spec
from husai_core.local_job import artifact_in
from husai_core.saes import checkpoint
from husai_core.stability.seed_group import read
from tests.husai_core.kinds.stress_job import network, run, siblings, stress

KIND = "stress.ood"
Pair = tuple[Artifact, list[Artifact]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    home = tmp_path_factory.mktemp("ood")
    transformer = network(home / "network")
    (activations,) = run("train.activations", home / "rows", transformer=[transformer])[1]
    return transformer, siblings(home / "saes", activations)


@pytest.fixture(scope="module")
def evidence(trained: Pair, tmp_path_factory: pytest.TempPathFactory) -> Result:
    result = stress(KIND, tmp_path_factory.mktemp("stress"), saes=trained[1], transformer=[trained[0]])
    assert isinstance(result, Result)
    return result


def test_the_domains_are_disjoint_halves() -> None:
    data = pairs(113)
    parts = _parts(Spec(), data)
    a, b = data.tokens[:, 1], data.tokens[:, 3]
    for name in ("train", "validation", "id"):
        assert int(a[parts[name]].max()) == 56
    assert int(a[parts["ood"]].min()) == 57
    assert int(torch.minimum(a, b)[parts["unmirrored"]].min()) == 57
    every = torch.cat([parts[name] for name in ("train", "validation", "id", "ood")])
    assert every.sort().values.tolist() == list(range(113**2))


def test_a_probe_on_the_answer_survives_and_one_on_the_operand_does_not() -> None:
    data = pairs(23)
    parts = _parts(Spec(), data)
    answer = _probe(one_hot(data.label).float(), data, parts)
    assert (answer.id, answer.ood, answer.unmirrored, answer.drop) == (1, 1, 1, 0)
    table = one_hot(data.tokens[:, 1] * 23 + data.tokens[:, 3]).float()
    assert _probe(table, data, parts).ood < 0.15


def test_drops_are_differences_of_the_panels(evidence: Result) -> None:
    assert evidence.threshold == 7
    assert evidence.rows["ood"] == 6 * 13
    assert evidence.rows["unmirrored"] == 6 * 6
    explained = sum(domains.id - domains.ood for domains in evidence.explained_variance) / 3
    drop = sum(domains.id - domains.ood for domains in evidence.probe_accuracy) / 3
    raw = evidence.raw_probe_accuracy.id - evidence.raw_probe_accuracy.ood
    statistics = {name: estimate.value for name, estimate in evidence.statistics.items()}
    assert statistics["explained_variance_drop"] == pytest.approx(explained)
    assert statistics["probe_accuracy_drop"] == pytest.approx(drop)
    assert statistics["probe_accuracy_drop_excess"] == pytest.approx(drop - raw)
    assert evidence.statistics["explained_variance_drop"].low is not None


def test_every_figure_is_compared_with_that_at_half(trained: Pair, evidence: Result) -> None:
    assert evidence.changes.keys() == evidence.statistics.keys()
    changes = {name: change.value or 0.0 for name, change in evidence.changes.items()}
    for figure in ("explained_variance", "probe_accuracy"):
        assert changes[f"{figure}_drop"] == pytest.approx(changes[f"{figure}_id"] - changes[f"{figure}_ood"])
    assert evidence.changes["probe_accuracy_drop_excess"] == evidence.changes["probe_accuracy_drop"]
    assert changes["explained_variance_id"] > 0


def test_in_distribution_figures_are_those_of_the_members(evidence: Result) -> None:
    for domains, member in zip(evidence.explained_variance, evidence.members, strict=True):
        assert domains.id == pytest.approx(member.explained_variance, abs=1e-4)
    assert 0 <= evidence.transformer_accuracy.ood <= 1


def test_other_weights_give_other_figures(trained: Pair, evidence: Result, tmp_path: Path) -> None:
    """The refits know only the recipe and the seeds; the given weights must count as well."""
    worse = [spoiled(sae, tmp_path / str(i)) for i, sae in enumerate(trained[1])]
    other = stress(KIND, tmp_path / "stress", saes=worse, transformer=[trained[0]]).statistics
    name = "candidate_explained_variance_ood"
    before, spoilt = evidence.statistics[name].value, other[name].value
    assert before is not None
    assert spoilt is not None
    assert before > spoilt + 0.2
    assert other["explained_variance_drop"] == evidence.statistics["explained_variance_drop"]


def spoiled(sae: Artifact, folder: Path) -> Artifact:
    """A checkpoint whose reconstruction is halved."""
    loaded = checkpoint.load(sae.path)
    loaded.W_dec, loaded.b_dec = loaded.W_dec / 2, loaded.b_dec / 2
    folder.mkdir()
    checkpoint.save(loaded, folder, loaded.provenance)
    return artifact_in(folder, "sae")


@pytest.mark.parametrize(
    ("p", "spec", "why"),
    [
        (3, {"validation_fraction": 0.4, "test_fraction": 0.4}, "too few pairs: 1 have both operands"),
        (3, {}, "validation_fraction leaves"),
        (13, {"test_fraction": 0.01}, "test_fraction leaves"),
    ],
)
def test_too_few_pairs_are_refused(p: int, spec: dict[str, float], why: str) -> None:
    with pytest.raises(UserError, match=why):
        _parts(Spec.model_validate(spec), pairs(p))


def test_a_network_that_is_shown_the_answer_is_told(trained: Pair, tmp_path: Path) -> None:
    transformer, saes = trained
    siblings_ = read(saes)
    assert not siblings_.leaks_label(transformer)
    assert replace(siblings_, position="answer_token").leaks_label(transformer)
    (tmp_path / "cfg.json").write_text('{"leaks_label": true}')
    assert siblings_.leaks_label(replace(transformer, path=tmp_path))


def test_repeats_bit_for_bit(trained: Pair, evidence: Result, tmp_path: Path) -> None:
    again = stress(KIND, tmp_path, saes=trained[1], transformer=[trained[0]])
    assert again.model_dump_json() == evidence.model_dump_json()


def test_accuracies_and_explained_variances_have_intervals_that_they_can_lie_in() -> None:
    """Three seeds, two of which are perfect: the interval over seeds would reach beyond 1."""
    perfect, poor = Domains(id=1.0, ood=1.0, unmirrored=1.0), Domains(id=0.7, ood=0.0, unmirrored=0.0)
    figures = _measured([perfect, perfect, poor], [perfect, perfect, poor], poor).statistics
    assert figures["probe_accuracy_id"].high == figures["explained_variance_id"].high == 1
    assert figures["probe_accuracy_ood"].low == 0
    assert figures["explained_variance_ood"].low is not None
    assert figures["explained_variance_ood"].low < 0
    assert "cut to [0, 1]" in figures["probe_accuracy_ood"].method
