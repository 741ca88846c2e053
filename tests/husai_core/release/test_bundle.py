from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from husai_core import identity
from husai_core.release import bundle, dsse
from husai_core.release.decide import decide
from husai_core.release.policy import load
from tests.husai_core.release.make import AS_OF, CANDIDATE, controls, full_evidence

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
STRICT = load("strict")
FIXTURES = Path(__file__).parent / "fixtures"


def sealed(directory: Path, chain: bundle.Chain | None = None, key: Ed25519PrivateKey = KEY) -> bundle.Bundle:
    evidence = full_evidence(STRICT)
    decision = decide(STRICT, CANDIDATE, evidence, controls(), AS_OF).model_dump(mode="json")
    bundle.write(directory, STRICT, evidence, controls(), decision)
    return bundle.seal(directory, key, chain or bundle.Chain(seq=1))


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return json.loads(identity.canonical(sealed(tmp_path).model_dump(mode="json")))  # type: ignore[no-any-return]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, (*path, key))
    else:
        yield path


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(document)
    parent = copied
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return copied


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return ("B" if value[:1] == "A" else "A") + value[1:]
    return "something" if value is None else None


def test_a_bundle_verifies_and_names_its_verdict(document: dict[str, Any]) -> None:
    report = bundle.verify(document, dsse.public_bytes(KEY))
    assert (report.ok, report.trusted, report.problems) == (True, True, [])
    assert (report.verdict, report.candidate) == ("pass", CANDIDATE)


def test_without_a_known_key_it_is_whole_but_not_trusted(document: dict[str, Any]) -> None:
    report = bundle.verify(document)
    assert (report.ok, report.trusted) == (True, False)


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert sealed(tmp_path / "one") == sealed(tmp_path / "two")


def test_any_changed_leaf_is_noticed(document: dict[str, Any]) -> None:
    paths = list(leaves(document))
    assert len(paths) > 300
    value = {path: _at(document, path) for path in paths}
    missed = [path for path in paths if bundle.verify(changed(document, path, other(value[path]))).ok]
    assert missed == []


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("policy", "rules", 1, "threshold"), 0.0, "policy"),
        (("evidence", 0, "document", "result", "converged"), False, "evidence"),
        (("evidence", 0, "produced_at"), 0.0, "decision"),
        (("decision", "verdict"), "fail", "decision"),
        (("controls", "bad", "result", "converged"), False, "decision"),
        (("chain", "seq"), 2, "signature"),
        (("envelope", "signatures", 0, "sig"), dsse.encode(bytes(64)), "signature"),
        (("envelope", "payloadType"), "text/plain", "signature"),
        (("format",), "husai-bundle/9", "format"),
        (("decision", "engine"), 9, "decision"),
    ],
)
def test_each_mismatch_is_named(document: dict[str, Any], path: tuple[Any, ...], value: Any, named: str) -> None:
    report = bundle.verify(changed(document, path, value))
    assert named in {problem.split(":")[0] for problem in report.problems}
    assert (report.verdict, report.trusted) == (None, False)


def earlier(directory: Path, engine: int, **fields: Any) -> dict[str, Any]:
    """A bundle of an earlier engine about evidence of its time, which says nothing of provenance and changes."""
    policy = bundle.Policy.model_validate(json.loads((FIXTURES / "engine-4.bundle.json").read_bytes())["policy"])
    evidence = full_evidence(policy, {"provenance": None, "changes": {}, **fields})
    decision = decide(policy, CANDIDATE, evidence, controls(), AS_OF, engine).model_dump(mode="json")
    bundle.write(directory, policy, evidence, controls(), decision)
    return json.loads(  # type: ignore[no-any-return]
        identity.canonical(bundle.seal(directory, KEY, bundle.Chain(seq=1)).model_dump(mode="json"))
    )


@pytest.mark.parametrize("engine", [2, 3, 4])
def test_decisions_of_earlier_engines_verify_and_say_what_they_said(tmp_path: Path, engine: int) -> None:
    document = earlier(tmp_path, engine)
    assert (bundle.verify(document).verdict, document["decision"]["engine"]) == ("pass", engine)
    assert not {"provenance", "settled", "margin"} & set(document["decision"]["rules"][0])


def test_earlier_engines_let_imported_saes_pass_no_rule(tmp_path: Path) -> None:
    document = earlier(tmp_path, 4, imported=True)
    assert bundle.verify(document).verdict == "inconclusive"
    assert "the SAEs were imported" in document["decision"]["rules"][0]["reason"]


def test_what_had_not_converged_still_decides_nothing_by_policies_of_its_time(tmp_path: Path) -> None:
    document = earlier(tmp_path, 4, converged=False, unconverged=["SAEs (seeds 1, 2)", "shuffled (seed 0)"])
    reason = "training had not converged: SAEs (seeds 1, 2), shuffled (seed 0)"
    assert {rule["reason"] for rule in document["decision"]["rules"]} == {reason}
    assert bundle.verify(document).ok


def test_a_decision_is_not_taken_for_one_of_another_engine(document: dict[str, Any]) -> None:
    report = bundle.verify(changed(document, ("decision", "engine"), 4))
    (problem,) = [text for text in report.problems if text.startswith("decision: recomputing gives another one")]
    assert "which differs in rules.provenance.accepts" in problem


def test_a_changed_figure_is_named(document: dict[str, Any]) -> None:
    rule = document["decision"]["rules"][0]
    report = bundle.verify(changed(document, ("decision", "rules", 0, "value"), 0.5))
    difference = f"rules.{rule['name']}.value (stored 0.5, recomputed {json.dumps(rule['value'])})"
    assert f"decision: recomputing gives another one, which differs in {difference}" in report.problems


def test_a_bundle_that_an_earlier_version_wrote_verifies() -> None:
    """Written by a pipeline of the version whose evidence did not yet say which siblings were left out."""
    document = json.loads((FIXTURES / "engine-4.bundle.json").read_bytes())
    assert "siblings_left_out" not in document["evidence"][0]["document"]["result"]
    report = bundle.verify(document, dsse.decode(document["public_key"]))
    assert (report.ok, report.trusted, report.verdict) == (True, True, "inconclusive"), report.problems
    verdicts = {rule["name"]: rule["verdict"] for rule in document["decision"]["rules"]}
    assert verdicts["stability"] == "inconclusive"


def test_a_bundle_of_engine_5_keeps_what_it_says_of_provenance_and_change() -> None:
    document = json.loads((FIXTURES / "engine-5.bundle.json").read_bytes())
    report = bundle.verify(document, dsse.public_bytes(KEY))
    assert (report.ok, report.verdict) == (True, "inconclusive"), report.problems
    rules = {rule["name"]: rule for rule in document["decision"]["rules"]}
    assert rules["provenance"]["reason"].startswith("claimed: only their user says")
    assert (rules["transcoder"]["settled"], rules["transcoder"]["retrained"]) == (False, True)


def test_a_forger_with_another_key_is_refused(tmp_path: Path) -> None:
    forged = sealed(tmp_path, key=Ed25519PrivateKey.from_private_bytes(b"f" * 32)).model_dump(mode="json")
    assert bundle.verify(forged).ok
    report = bundle.verify(forged, dsse.public_bytes(KEY))
    assert report.problems == ["signature: the bundle's key is not the expected one"]


@pytest.mark.parametrize("broken", [{}, {"format": "husai-bundle/1"}, {"evidence": [{"document": {"inputs": 5}}]}])
def test_a_malformed_bundle_is_a_problem_not_an_exception(broken: dict[str, Any]) -> None:
    assert bundle.verify(broken).problems[0].startswith("format")


def test_unknown_content_is_refused(document: dict[str, Any]) -> None:
    assert not bundle.verify({**document, "note": "approved"}).ok


def test_the_statement_is_in_toto_about_the_candidate(document: dict[str, Any]) -> None:
    statement = json.loads(dsse.decode(document["envelope"]["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "candidate", "digest": {"sha256": CANDIDATE}}]
    assert statement["predicateType"] == "urn:husai:gate-decision:v1"
    assert statement["predicate"]["decision"] == document["decision"]


def test_decisions_form_a_chain(tmp_path: Path) -> None:
    first = sealed(tmp_path)
    second = sealed(tmp_path, bundle.Chain(seq=2, previous=bundle.chain_hash(first)))
    payload = identity.sha256(dsse.decode(second.envelope.payload))
    assert bundle.chain_hash(second) == identity.sha256((bundle.chain_hash(first) + payload).encode())
    assert bundle.chain_hash(first) != bundle.chain_hash(sealed(tmp_path, bundle.Chain(seq=2)))


def test_nothing_in_release_loads_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, husai_core.release as r;"
        "[importlib.import_module(f'husai_core.release.{m.name}') for m in pkgutil.iter_modules(r.__path__)];"
        "from husai_core.release.policy import load; load('strict');"
        "sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
