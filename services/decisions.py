"""Signed decisions in a hash chain, one for each finished `release.gate` execution."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core.identity import sha256
from husai_core.release import bundle as bundles
from husai_core.release import dsse
from husai_core.release.decide import instant
from services import chain
from services.accounts import private_file
from services.artifacts import Store, read_json
from services.db import clock
from services.ids import new_id
from services.problems import not_found
from services.settings import Settings
from services.tables import ChainHead, Decision, Execution, Output, SigningKey

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
    place = chain.extend(session, session.scalar(select(Decision).order_by(Decision.seq.desc()).limit(1)))
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        sealed = bundles.seal(Path(folder), signer, place)
    remember(session, signer)
    chained = bundles.chain_hash(sealed)
    session.merge(ChainHead(id=1, seq=place.seq, chain=chained))
    session.add(
        Decision(
            seq=place.seq, id=new_id("decision"), execution_id=execution.id, policy=sealed.policy.name,
            policy_digest=sealed.policy.digest, candidate=sealed.candidate, verdict=sealed.decision["verdict"],
            envelope=sealed.envelope.model_dump(mode="json"), public_key=sealed.public_key,
            previous=place.previous, chain=chained, created_at=clock(session),
            judged_at=min(instant(sealed.as_of), clock(session)),
        )
    )  # fmt: skip


def remember(session: Session, signer: Signer, *, current: bool = False) -> None:
    """Keep the public half of a key that signs, or is about to; `current` makes it the one in use from now on."""
    raw = dsse.public_bytes(signer)
    keyid = sha256(raw)
    row = session.get(SigningKey, keyid)
    if row is None:
        session.add(SigningKey(keyid=keyid, public_key=dsse.encode(raw), since=clock(session)))
    elif current:
        row.since = clock(session)
    session.flush()


@dataclass(frozen=True)
class PublicKey:
    """A key that signs or signed decisions: its id (SHA-256 of the raw key), raw in base64, and as PEM."""

    keyid: str
    public_key: str
    pem: str
    current: bool


def signing_keys(session: Session) -> list[PublicKey]:
    """Every key that ever signed here, the current one first."""
    rows = list(session.scalars(select(SigningKey).order_by(SigningKey.since.desc(), SigningKey.keyid)))
    return [PublicKey(row.keyid, row.public_key, _pem(row.public_key), row is rows[0]) for row in rows]


def _pem(public_key: str) -> str:
    key = Ed25519PublicKey.from_public_bytes(dsse.decode(public_key))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def get(session: Session, decision_id: str) -> Decision:
    """A decision by its id.

    Raises:
        Problem: `unknown-decision`.
    """
    decision = session.scalar(select(Decision).where(Decision.id == decision_id))
    if decision is None:
        raise not_found("decision", decision_id)
    return decision


def of(session: Session, execution_id: str) -> Decision:
    """The decision that an execution made."""
    return session.scalars(select(Decision).where(Decision.execution_id == execution_id)).one()


def document(session: Session, store: Store, decision: Decision) -> dict[str, Any]:
    """What was decided: the content of `decision.json`."""
    content: dict[str, Any] = read_json(store, _artifact(session, decision), "decision.json")
    return content


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
