"""Signed decisions in a hash chain, one for each finished `release.gate` execution."""

import os
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core.release import bundle as bundles
from husai_core.release.decide import instant
from services.accounts import private_file
from services.artifacts import Store, read_json
from services.db import clock, now
from services.ids import new_id
from services.problems import not_found
from services.settings import Settings
from services.tables import Decision, Execution, Output

Signer = Ed25519PrivateKey
PARTS = ("decision", "policy", "evidence", "controls")


def signing_key(settings: Settings) -> Signer:
    """The server's Ed25519 key, from `HUSAI_SIGNING_KEY_FILE` or made once below the home folder."""

    def make() -> str:
        return (
            Ed25519PrivateKey.generate()
            .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            .decode()
        )

    path = Path(os.environ.get("HUSAI_SIGNING_KEY_FILE") or settings.root / "signing.key")
    key = serialization.load_pem_private_key(private_file(path, make).encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is not an Ed25519 key")
    return key


def record(session: Session, signer: Signer | None, execution: Execution, files: dict[str, bytes]) -> None:
    """Sign and chain the decision that an execution made, if these are its files.

    Raises:
        ValueError: there is one, and no key to sign it with.
    """
    if not files:
        return
    if signer is None:
        raise ValueError("this worker has no key to sign decisions with")
    last = session.scalar(select(Decision).order_by(Decision.seq.desc()).limit(1).with_for_update())
    seq, previous = (last.seq + 1, last.chain) if last else (1, bundles.GENESIS)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        sealed = bundles.seal(Path(folder), signer, bundles.Chain(seq=seq, previous=previous))
    session.add(
        Decision(
            seq=seq, id=new_id(), execution_id=execution.id, policy=sealed.policy.name,
            policy_digest=sealed.policy.digest, candidate=sealed.candidate, verdict=sealed.decision["verdict"],
            envelope=sealed.envelope.model_dump(mode="json"), public_key=sealed.public_key,
            previous=previous, chain=bundles.chain_hash(sealed), created_at=now(),
            judged_at=min(instant(sealed.as_of), clock(session)),
        )
    )  # fmt: skip


def get(session: Session, decision_id: str) -> Decision:
    """A decision by its id.

    Raises:
        Problem: `unknown-decision`.
    """
    decision = session.scalar(select(Decision).where(Decision.id == decision_id))
    if decision is None:
        raise not_found("decision", decision_id)
    return decision


def document(session: Session, store: Store, decision: Decision) -> dict[str, Any]:
    """What was decided: the content of `decision.json`."""
    found: dict[str, Any] = read_json(store, _artifact(session, decision), "decision.json")
    return found


def bundle(session: Session, store: Store, decision: Decision) -> dict[str, Any]:
    """Everything that is needed to check a decision offline."""
    artifact = _artifact(session, decision)
    parts = {name: read_json(store, artifact, f"{name}.json") for name in PARTS}
    whole = bundles.Bundle.model_validate(
        {
            **parts,
            "candidate": decision.candidate,
            "as_of": parts["decision"]["as_of"],
            "chain": {"seq": decision.seq, "previous": decision.previous},
            "envelope": decision.envelope,
            "public_key": decision.public_key,
        }
    )
    return whole.model_dump(mode="json")


def _artifact(session: Session, decision: Decision) -> str:
    query = select(Output.sha256).where(Output.execution_id == decision.execution_id, Output.name == "decision")
    return session.scalars(query).one()
