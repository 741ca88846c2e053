"""Decision bundles: everything needed to check a decision offline, signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from husai_core import identity
from husai_core.release import dsse
from husai_core.release.decide import decide
from husai_core.release.evidence import Controls, EvidenceItem, result_digest
from husai_core.release.judge import COMPATIBLE, ENGINE
from husai_core.release.policy import Policy

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:husai:gate-decision:v1"
GENESIS = "0" * 64
MOST_NAMED = 3
"""Differences of a recomputed decision that are named."""


class Chain(BaseModel):
    """A decision's place in the log of decisions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int = Field(ge=1)
    previous: str = Field(default=GENESIS, description="`chain_hash` of the decision before it")


class Bundle(BaseModel):
    """One signed decision with all that it was derived from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["husai-bundle/1"] = "husai-bundle/1"
    policy: Policy
    candidate: str
    as_of: str
    evidence: list[EvidenceItem]
    controls: Controls
    decision: dict[str, Any]
    chain: Chain
    envelope: dsse.Envelope
    public_key: str = Field(description="base64 of the raw Ed25519 key")


class VerifyReport(BaseModel):
    """What checking a bundle found. `trusted` says that the signer's key was known beforehand."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    problems: list[str]
    trusted: bool
    verdict: str | None = Field(default=None, description="only where nothing is wrong")
    candidate: str | None = None
    policy_digest: str | None = None
    keyid: str | None = None


def write(
    directory: Path, policy: Policy, evidence: list[EvidenceItem], controls: Controls, decision: Mapping[str, Any]
) -> None:
    """Write the files of a decision artifact."""
    parts = {
        "decision": dict(decision),
        "policy": policy.model_dump(mode="json"),
        "evidence": [item.model_dump(mode="json") for item in evidence],
        "controls": controls.model_dump(mode="json"),
    }
    for name, content in parts.items():
        (directory / f"{name}.json").write_bytes(identity.canonical(content))


def seal(directory: Path, key: Ed25519PrivateKey, chain: Chain) -> Bundle:
    """Sign the decision artifact whose files lie in `directory` and make its bundle."""
    parts = {
        name: json.loads((directory / f"{name}.json").read_bytes())
        for name in ("decision", "policy", "evidence", "controls")
    }
    decision = parts["decision"]
    envelope = dsse.sign(PAYLOAD_TYPE, statement(decision, chain), key)
    return Bundle.model_validate(
        {
            **parts,
            "candidate": decision["candidate"],
            "as_of": decision["as_of"],
            "chain": chain,
            "envelope": envelope,
            "public_key": dsse.encode(dsse.public_bytes(key)),
        }
    )


def statement(decision: Mapping[str, Any], chain: Chain) -> bytes:
    """The in-toto statement that is signed: the whole decision and its place in the log, about the candidate."""
    return identity.canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "candidate", "digest": {"sha256": decision["candidate"]}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"decision": dict(decision), "chain": chain.model_dump(mode="json")},
        }
    )


def chain_hash(bundle: Bundle) -> str:
    """What the next decision names as `previous`: SHA-256 of this one's `previous` and payload digest."""
    return identity.sha256((bundle.chain.previous + identity.sha256(dsse.decode(bundle.envelope.payload))).encode())


def verify(document: Mapping[str, Any], public_key: bytes | None = None) -> VerifyReport:
    """Recompute a bundle from its own content, offline.

    Args:
        document: the parsed `bundle.json`.
        public_key: the raw key that the signer is known by; None takes the bundle's own word for it, which shows
            that the bundle is whole but not who signed it.
    """
    try:
        bundle = Bundle.model_validate(document)
        whole = identity.canonical(bundle.model_dump(mode="json")) == identity.canonical(dict(document))
    except (ValidationError, ValueError) as error:
        return VerifyReport(ok=False, problems=[f"format: {_first_line(error)}"], trusted=False)
    checks: dict[str, Callable[[], str | None]] = {
        "format": lambda: None if whole else "the bundle is not in its normal form",
        "policy": lambda: _policy(bundle),
        "evidence": lambda: _evidence(bundle),
        "decision": lambda: _decision(bundle),
        "signature": lambda: _signature(bundle, public_key),
    }
    problems = [f"{name}: {problem}" for name, check in checks.items() if (problem := check())]
    return VerifyReport(
        ok=not problems,
        problems=problems,
        trusted=public_key is not None and not any(p.startswith("signature") for p in problems),
        verdict=None if problems else bundle.decision["verdict"],
        candidate=bundle.candidate,
        policy_digest=bundle.policy.digest,
        keyid=bundle.envelope.signatures[0].keyid if bundle.envelope.signatures else None,
    )


def _policy(bundle: Bundle) -> str | None:
    same = bundle.policy.digest == bundle.decision.get("policy_digest")
    return None if same else "its digest is not the one that the decision names"


def _evidence(bundle: Bundle) -> str | None:
    wrong = [item.digest for item in bundle.evidence if result_digest(item.document) != item.digest]
    return f"these documents do not have their digests: {', '.join(wrong)}" if wrong else None


def _decision(bundle: Bundle) -> str | None:
    engine = bundle.decision.get("engine")
    if engine not in COMPATIBLE:
        return f"it was made by engine {engine}; this is engine {ENGINE}"
    try:
        again = decide(bundle.policy, bundle.candidate, bundle.evidence, bundle.controls, bundle.as_of, engine)
    except ValueError as error:
        return f"it cannot be recomputed: {_first_line(error)}"
    recomputed = again.model_dump(mode="json")
    if identity.canonical(recomputed) == identity.canonical(bundle.decision):
        return None
    places = list(_differing(bundle.decision, recomputed))
    more = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    return f"recomputing gives another one, which differs in {', '.join(places[:MOST_NAMED])}{more}"


def _differing(stored: Any, again: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ, as `path (stored, recomputed other)`; rules go by their names."""
    if isinstance(stored, dict) and isinstance(again, dict):
        for name in sorted(stored.keys() | again.keys()):
            yield from _differing(stored.get(name), again.get(name), f"{path}.{name}" if path else name)
    elif isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        for place, (before, after) in enumerate(zip(stored, again, strict=True)):
            name = before.get("name", place) if isinstance(before, dict) else place
            yield from _differing(before, after, f"{path}.{name}")
    elif stored != again:
        yield f"{path} (stored {_shown(stored)}, recomputed {_shown(again)})"


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]


def _signature(bundle: Bundle, public_key: bytes | None) -> str | None:
    try:
        signer = dsse.decode(bundle.public_key)
        if public_key is not None and signer != public_key:
            return "the bundle's key is not the expected one"
        payload = dsse.verify(bundle.envelope, signer)
    except ValueError as error:
        return _first_line(error)
    if bundle.envelope.payloadType != PAYLOAD_TYPE:
        return f"the payload is of type {bundle.envelope.payloadType}"
    signed = payload == statement({"candidate": bundle.candidate, **bundle.decision}, bundle.chain)
    return None if signed else "the signed statement is about another decision"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
    return str(error).splitlines()[0]
