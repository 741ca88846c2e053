"""Release policies: those that come with HUSAI, and a lab's own."""

from typing import Annotated

from fastapi import Query

from api import schemas, serializers
from api import submission as submissions
from api.deps import Admin, Ctx, Reader, v1_router
from api.http import NamePath
from husai_core import kinds
from husai_core.release import policy_check
from services import policies
from services.problems import invalid

router = v1_router("gates", "/policies")
Version = Annotated[int | None, Query(ge=1, le=schemas.MOST_VERSIONS, description="an earlier one; else the newest")]


@router.get("")
def list_policies(context: Ctx, principal: Reader) -> schemas.Policies:
    """Every policy in its newest version, retired ones too."""
    with context.database.read() as session:
        return schemas.Policies(items=[serializers.policy(entry) for entry in policies.entries(session)])


@router.get("/{policy}")
def read_policy(policy: NamePath, context: Ctx, principal: Reader, version: Version = None) -> schemas.Policy:
    """A policy with its rules."""
    with context.database.read() as session:
        return serializers.policy(policies.entry(session, policy, version))


@router.post("", status_code=201)
def add_policy(body: schemas.PolicyRequest, context: Ctx, principal: Admin) -> schemas.Policy:
    """Add a policy of the lab, or a higher version of one.

    It needs the scope `admin`: whoever may only ask the gate, such as a CI job, must not set its own bar.
    """
    submissions.refuse_unstorable("policy", body.model_dump(mode="json"), "invalid-policy", "Invalid policy")
    if problems := policy_check.problems(body, kinds.statistics()):
        raise invalid("invalid-policy", "Invalid policy", "; ".join(problems[:5]), problems=problems)
    with context.write() as session:
        return serializers.policy(policies.add(session, principal.owner_id, body))


@router.post("/{policy}:retire")
def retire_policy(policy: NamePath, context: Ctx, principal: Admin) -> schemas.Policy:
    """Let a policy of the lab decide nothing more. Its decisions stay, and a higher version brings it back."""
    with context.write() as session:
        return serializers.policy(policies.retire(session, policy))
