from __future__ import annotations

from husai_core import identity, kinds
from husai_core.evidence import Evidence


def test_job_digest_depends_on_each_part() -> None:
    spec, inputs = {"k": 16}, {"saes": ["a", "b"]}
    digests = {
        kinds.job_digest("train.sae", spec, inputs, "cpu"),
        kinds.job_digest("train.transformer", spec, inputs, "cpu"),
        kinds.job_digest("train.sae", {"k": 17}, inputs, "cpu"),
        kinds.job_digest("train.sae", spec, {"saes": ["b", "a"]}, "cpu"),
        kinds.job_digest("train.sae", spec, inputs, "cuda"),
    }
    assert len(digests) == 5


def test_an_unbound_port_is_no_part_of_the_identity() -> None:
    assert kinds.job_digest("train.sae", {}, {"saes": []}, "cpu") == kinds.job_digest("train.sae", {}, {}, "cpu")


def test_a_studys_code_covers_its_children_and_its_policies() -> None:
    modules = [kinds.get(name).module for name in kinds.descendants("study.pipeline")]
    files = {path.relative_to(identity.PACKAGE).as_posix() for path in identity.sources(modules)}
    assert {"saes/trainer.py", "kinds/stress/ood.py", "release/judge.py", "release/policies/strict.yaml"} <= files


def test_what_only_shows_results_is_no_part_of_a_kinds_code() -> None:
    paths = identity.sources([kinds.get("train.sae").module])
    assert identity.PACKAGE / "panels.py" not in paths


def test_an_earlier_name_of_a_kind_still_finds_it() -> None:
    assert kinds.get("train.imported").name == "data.import"
    assert "train.imported" not in kinds.names()


def test_every_kind_whose_result_is_evidence_declares_its_statistics() -> None:
    """Policies of a lab are checked against `Kind.statistics`; a kind that gives evidence says what can be read."""
    giving = {kind.name for kind in kinds.all_kinds() if issubclass(kind.result, Evidence)}
    assert set(kinds.statistics()) == giving
