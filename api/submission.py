"""From a request body to a submission that its sender may make."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from typing import Any

from sqlalchemy.orm import Session

from api import schemas
from api.deps import Context
from husai_core import kinds
from husai_core.errors import UserError
from husai_core.kinds import plan_estimate
from husai_core.kinds.kind import BaseSpec, Facts, Kind
from services import accounts, input_facts, jobs
from services.accounts import Principal
from services.jobs import Reference, Submission
from services.problems import invalid
from services.queries import access, ids

log = logging.getLogger("husai.api")
DECIDING = "release.gate"
SURROGATE = re.compile(r"[\ud800-\udfff]")
LARGEST = 2**53 - 1
"""Whole numbers beyond have no canonical JSON."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def from_body(body: schemas.JobRequest) -> Submission:
    """The submission that a validated body asks for. Only the fields that were given go into the spec.

    Raises:
        Problem: `invalid-spec`: a text has control characters, or a number has no canonical JSON, so the job would
            have no digest.
    """
    spec = body.spec.model_dump(mode="json", exclude_unset=True)
    refuse_unstorable("spec", spec, "invalid-spec", "Invalid spec")
    return Submission(
        body.kind, spec, {port: _references(sources) for port, sources in body.inputs.items()}, body.labels,
        body.priority, body.device, body.reuse == "allow",
    )  # fmt: skip


def refuse_unstorable(field: str, document: Any, slug: str, title: str) -> None:
    """Refuse a document with a text that cannot be stored, or a number that has no canonical JSON.

    Raises:
        Problem: `slug`.
    """
    if wrong := [{"field": place, "message": message} for place, message in _unfit(field, document)]:
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in wrong[:5])
        raise invalid(slug, title, detail, errors=wrong)


def _unfit(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """What has no canonical JSON or cannot be stored: the field, and what is wrong with its value or a name in it."""
    if isinstance(value, str):
        if wrong := _unfit_text(value):
            yield field, wrong
    elif isinstance(value, dict):
        for name, inner in value.items():
            wrong = _unfit_text(name)
            yield from [(field, wrong)] if wrong else _unfit(f"{field}.{name}", inner)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unfit(f"{field}.{position}", inner)
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield field, "is too large a number"
    elif isinstance(value, float) and not isfinite(value):
        yield field, "must be a finite number"


def _unfit_text(text: str) -> str:
    """What is wrong with a text; nothing if it can be stored."""
    if CONTROL.search(text):
        return "control characters"
    return "" if text.isascii() or not SURROGATE.search(text) else "half of a character"


def _references(sources: list[str | schemas.OutputOf] | str | schemas.OutputOf) -> list[Reference]:
    listed = sources if isinstance(sources, list) else [sources]
    return [source.model_dump() if isinstance(source, schemas.OutputOf) else source for source in listed]


def complete(context: Context, session: Session, principal: Principal, submission: Submission) -> Submission:
    """The submission with every shortened id and digest in its inputs written out.

    Raises:
        Problem: `unknown-job`, `unknown-artifact` or `ambiguous-id`.
    """

    def whole(reference: Reference) -> Reference:
        if isinstance(reference, str):
            return ids.artifact(session, context.settings, principal, reference)
        return {**reference, "job": ids.job(session, principal, reference["job"])}

    inputs = {port: [whole(reference) for reference in references] for port, references in submission.inputs.items()}
    return replace(submission, inputs=inputs)


def check_visible(context: Context, session: Session, principal: Principal, submission: Submission) -> None:
    """Refuse inputs that name a job or an artifact which the caller may not see.

    Raises:
        Problem: `unknown-job` or `unknown-artifact`.
    """
    for name, references in submission.inputs.items():
        digests = {reference for reference in references if isinstance(reference, str)}
        for reference in references:
            if isinstance(reference, dict):
                jobs.get(session, principal, reference["job"])
        if access.everything(context.settings, principal):
            continue
        for digest in sorted(digests - access.among(context.settings, session, principal, digests)):
            detail = f"Input {name!r}: there is no artifact {digest!r}."
            raise invalid("unknown-artifact", "Unknown artifact", detail)


def check_facts(context: Context, session: Session, principal: Principal, submission: Submission) -> None:
    """Refuse a spec where what is known about its inputs already shows that the job would fail.

    Raises:
        Problem: `unfit-input`; or `unknown-job` or `unknown-artifact`, for inputs that the caller may not see.
    """
    kind = jobs.find_kind(submission.kind)
    if kind.spec.check_facts is BaseSpec.check_facts and not kind.is_study:
        return
    check_visible(context, session, principal, submission)
    spec = jobs.validate_spec(kind, submission.spec, session)
    jobs.check_inputs(session, kind, spec, submission.inputs)
    refuse_unfit(kind, spec, input_facts.of(session, context.store, submission.inputs))


def refuse_unfit(kind: Kind, spec: BaseSpec, facts: Facts) -> None:
    """Refuse a spec that what is known about its inputs rules out; of a study, also that of a job that it plans.

    Raises:
        Problem: `unfit-input`.
    """
    try:
        plan_estimate.jobs(kind.name, spec, facts)
    except UserError as wrong:
        raise invalid("unfit-input", "Unfit input", f"{kind.name}: {wrong}.") from None
    except Exception as error:
        log.warning("no estimate for %s: %s: %s", kind.name, type(error).__name__, error)


def check_scope(principal: Principal, kind: str, priority: str | int) -> None:
    """Refuse what needs the scope `gate` to a key without it: a kind that makes a decision, itself or through a job of
    its own, and the priority that goes before all others.

    Raises:
        Problem: `unknown-kind` or `wrong-scope`.
    """
    if DECIDING in kinds.descendants(jobs.find_kind(kind).name) or jobs.is_urgent(priority):
        accounts.require(principal, "gate")
