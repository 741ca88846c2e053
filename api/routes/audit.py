"""What auditors look at: the chain of decisions, and the keys that signed them."""

from api import operations
from api.deps import Ctx, Reader, v1_router
from services import chain, decisions

router = v1_router("audit")


@router.get("/chain")
def read_chain(context: Ctx, principal: Reader) -> operations.Chain:
    """Whether every decision is still there, unchanged and in its place, with every signature checked."""
    with context.database.read() as session:
        report = chain.check(session)
    return operations.Chain(ok=report.ok, length=report.length, head=report.head, problems=report.problems)


@router.get("/signing-keys")
def signing_keys(context: Ctx) -> operations.SigningKeys:
    """The public keys that decisions are signed with, the current one first. Needs no API key."""
    with context.database.read() as session:
        keys = decisions.signing_keys(session)
    return operations.SigningKeys(items=[operations.SigningKey(**vars(key)) for key in keys])
