"""Decisions as a finished gate records them."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from husai_core.release import bundle
from husai_core.release.decide import decide
from husai_core.release.policy import load
from services import accounts, decisions
from services.db import now
from services.ids import new_id
from services.states import State
from services.tables import Decision, Execution
from tests.husai_core.release import make

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def record(session: Session, folder: Path, signer: Ed25519PrivateKey = SIGNER) -> Decision:
    """One more decision at the end of the chain, of an execution of its own."""
    policy, controls = load("strict"), make.controls()
    decision = decide(policy, make.CANDIDATE, [], controls, make.AS_OF)
    folder.mkdir(exist_ok=True)
    bundle.write(folder, policy, [], controls, decision.model_dump(mode="json"))
    execution = Execution(
        id=new_id("execution"), digest="d" * 64, kind="release.gate", queue="control", spec={}, inputs={},
        device="cpu", environment={}, owner_id=accounts.create_owner(session, "ada", "researcher").id, priority=0,
        shared=False, state=State.SUCCEEDED, created_at=now(),
    )  # fmt: skip
    session.add(execution)
    session.flush()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    decisions.record(session, signer, execution, files)
    session.flush()
    return decisions.of(session, execution.id)
