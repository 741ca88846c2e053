"""A lab's own policies: versions that never change, beside the policies that come with HUSAI."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core import wording
from husai_core.kinds.kind import BaseSpec, Kind
from husai_core.release import policy as packaged
from husai_core.release.policy import Policy
from services.db import clock
from services.problems import Problem, conflict, not_found
from services.tables import LabPolicy

DOCUMENT = "policy_document"
"""The field of a spec that holds the policy named in its field `policy` in full, where that is a lab's own."""


@dataclass(frozen=True)
class Entry:
    """A version of a policy. One that comes with HUSAI was never added, and is never retired."""

    policy: Policy
    added_at: float | None = None
    retired_at: float | None = None

    @property
    def packaged(self) -> bool:
        """True when it comes with HUSAI."""
        return self.added_at is None


def entries(session: Session) -> list[Entry]:
    """The policies that come with HUSAI, and the newest version of each of the lab's own, retired ones too."""
    rows = session.scalars(select(LabPolicy).order_by(LabPolicy.name, LabPolicy.version))
    newest = {row.name: row for row in rows}
    return [*(Entry(packaged.load(name)) for name in packaged.names()), *map(_entry, newest.values())]


def entry(session: Session, name: str, version: int | None = None) -> Entry:
    """A policy by name: a version of it, or the newest.

    Raises:
        Problem: `unknown-policy`.
    """
    if name in packaged.names():
        known = Entry(packaged.load(name))
        if version in (None, known.policy.version):
            return known
    else:
        query = select(LabPolicy).where(LabPolicy.name == name).order_by(LabPolicy.version.desc()).limit(1)
        if row := session.scalar(query if version is None else query.where(LabPolicy.version == version)):
            return _entry(row)
    raise _unknown(session, name, version)


def _unknown(session: Session, name: str, version: int | None) -> Problem:
    """The refusal of a name that no policy has, with the names that may have been meant, or of a version."""
    known = sorted({*packaged.names(), *session.scalars(select(LabPolicy.name))})
    if name in known:
        return not_found("policy", f"{name}, version {version}")
    near = wording.closest(name, known)
    detail = f"There is no policy {name!r}{wording.hint(near) or '.'} The policies are {', '.join(known)}."
    return Problem(404, "unknown-policy", "Unknown policy", detail, suggestions=near)


def active(session: Session, name: str) -> Policy:
    """The policy that decides under a name.

    Raises:
        Problem: `unknown-policy` or `retired-policy`.
    """
    known = entry(session, name)
    if known.retired_at is not None:
        detail = f"The policy {name!r} is retired; decisions that it made before stay."
        raise conflict("retired-policy", "Retired policy", detail)
    return known.policy


def add(session: Session, owner_id: str, policy: Policy) -> Entry:
    """Keep a version of a lab's policy, from now on the one that decides under its name.

    Raises:
        Problem: `policy-taken`, or `policy-version` where the version is not higher than the newest.
    """
    if policy.name in packaged.names():
        detail = f"The policy {policy.name!r} comes with HUSAI and cannot be changed; give yours another name."
        raise conflict("policy-taken", "Name taken", detail)
    newest = session.scalar(
        select(LabPolicy.version).where(LabPolicy.name == policy.name).order_by(LabPolicy.version.desc()).limit(1)
    )
    if newest is not None and policy.version <= newest:
        detail = f"The policy {policy.name!r} has version {newest} already; the next one needs a higher number."
        raise conflict("policy-version", "Version not higher", detail, version=newest)
    row = LabPolicy(
        name=policy.name, version=policy.version, digest=policy.digest, document=policy.model_dump(mode="json"),
        owner_id=owner_id, added_at=clock(session),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _entry(row)


def retire(session: Session, name: str) -> Entry:
    """Let a lab's policy decide nothing more; adding a higher version brings its name back.

    Raises:
        Problem: `unknown-policy`, `policy-taken` where it comes with HUSAI, or `retired-policy`.
    """
    if name in packaged.names():
        detail = f"The policy {name!r} comes with HUSAI and cannot be retired."
        raise conflict("policy-taken", "Name taken", detail)
    version = active(session, name).version
    row = session.get_one(LabPolicy, (name, version), with_for_update=True)
    row.retired_at = clock(session)
    session.flush()
    return _entry(row)


def completed(session: Session, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    """A spec with the lab's policy that it names in full, so that the job needs no database.

    Raises:
        Problem: `unknown-policy` or `retired-policy`.
    """
    name = spec.get("policy")
    if DOCUMENT not in kind.spec.model_fields or not isinstance(name, str) or name in packaged.names():
        return spec
    policy = active(session, name)
    return spec if spec.get(DOCUMENT) else {**spec, DOCUMENT: policy.model_dump(mode="json")}


def check(session: Session, kind: Kind, spec: BaseSpec) -> None:
    """Refuse a policy in full that is not the one which decides under its name.

    Raises:
        Problem: `unknown-policy`, `retired-policy` or `policy-changed`.
    """
    if DOCUMENT not in kind.spec.model_fields:
        return
    chosen = spec.model_dump(include={"policy", DOCUMENT})
    name, document = chosen["policy"], chosen[DOCUMENT]
    if name in packaged.names():
        return
    policy = active(session, name)
    if document is None or Policy.model_validate(document).digest != policy.digest:
        detail = f"This is not the policy {name!r} as it stands here, which is version {policy.version}."
        raise Problem(409, "policy-changed", "Another policy", detail, version=policy.version)


def _entry(row: LabPolicy) -> Entry:
    return Entry(Policy.model_validate(row.document), row.added_at, row.retired_at)
