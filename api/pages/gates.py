"""Candidates, and the decisions about them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from api import paging, schemas
from api.deps import Context, Ctx
from api.pages.paths import CandidatePath, DecisionPath
from api.pages.shell import Seen, Sent, Visitor, back_to, pages_router, render
from api.pages.text import tone
from api.routes import badges
from api.routes import gates as v1
from husai_core import kinds
from husai_core.estimate import Estimate
from husai_core.panels import IntervalRow
from husai_core.release.advice import RULE_WORDS, advice
from husai_core.release.policy import Policy
from husai_core.render import figures, numbers
from services import accounts, policies, tables
from services.queries import decisions as decision_queries
from services.queries import jobs as job_queries

router = pages_router()
ROWS = 50
MOST_DECISIONS = 20
TELLING = ("architecture", "d_in", "d_sae", "k", "hook_name", "model_name")
"""The facts that tell checkpoints apart in a list."""
AGREES = {
    "yes": ", which makes such SAEs",
    "no": ", which makes other SAEs",
    "unknown": "; whether that makes such SAEs is unknown",
}
"""What is said of a claimed recipe, by whether SAEs trained here by it are like those that it is claimed of."""


@dataclass(frozen=True)
class RuleView:
    """One rule of a decision: what it says, its verdict and figure in words, the interval against its bar, trainings.

    `plot` is empty where a rule has no figure to draw; `training` says whose SAEs were measured, `settled` how the
    figure changed over the last doubling of training.
    """

    rule: Mapping[str, Any]
    word: str
    figure: str
    need: str
    plot: Markup
    training: str
    settled: str


@router.get("/candidates")
def candidates(
    request: Request, context: Ctx, visitor: Seen, controls: bool = False, cursor: paging.Cursor = None
) -> Response:
    """SAE checkpoints that a gate may judge, newest first; those that gates trained as controls are folded away."""
    accounts.require(visitor.principal, "read")
    page = v1.list_candidates(request, Response(), context, visitor.principal, controls, cursor, ROWS)
    verdicts = {row.sha256: _decisions(context, visitor, row.sha256)[:1] for row in page.items}
    return render(
        request, "candidates.html", title="Candidates", page=page, verdicts=verdicts, controls=controls,
        twin=f"/v1/candidates?controls={'true' if controls else 'false'}",
        facts={row.sha256: _facts(row.facts, TELLING) for row in page.items},
    )  # fmt: skip


def _facts(facts: Mapping[str, Any], wanted: Collection[str] = ()) -> dict[str, str]:
    """The facts of a checkpoint that are one value each, in words: all, or those that are wanted.

    Where it reads stands with its training, and an imported one's file may claim of which model.
    """
    training = facts.get("husai") or {}
    claimed = training.get("claimed") or {}
    origin = {"hook_name": training.get("hook_name"), "model_name": claimed.get("model_name")}
    return {
        name: numbers.cell(value)
        for name, value in {**origin, **facts}.items()
        if isinstance(value, str | int | float | bool) and (not wanted or name in wanted)
    }


def _policies(context: Context) -> list[Policy]:
    """The policies that may be asked."""
    with context.database.read() as session:
        return [entry.policy for entry in policies.entries(session) if entry.retired_at is None]


def _decisions(context: Context, visitor: Visitor, candidate: str) -> list[schemas.Decision]:
    with context.database.read() as session:
        rows, _ = decision_queries.page(
            session, context.settings, visitor.principal, candidate=candidate, limit=MOST_DECISIONS
        )
        return [v1.decision_document(context, session, visitor.principal, row) for row in rows]


@router.get("/candidates/{candidate}")
def candidate(request: Request, candidate: CandidatePath, context: Ctx, visitor: Seen) -> Response:
    """A checkpoint, its siblings, and what was decided about it."""
    accounts.require(visitor.principal, "read")
    document = v1.read_candidate(candidate, context, visitor.principal)
    return render(
        request, "candidate.html", title=f"Candidate {candidate[:12]}", twin=f"/v1/candidates/{candidate}",
        candidate=document, facts=_facts(document.facts), policies=_policies(context),
        decisions=_decisions(context, visitor, candidate),
    )  # fmt: skip


@router.post("/candidates/{candidate}/decide")
def decide(candidate: CandidatePath, context: Ctx, form: Sent) -> Response:
    """Ask a policy about a candidate."""
    accounts.require(form.visitor.principal, "gate")
    body = schemas.DecisionRequest(candidate=candidate)
    answer = v1.decide(form.get("policy", "strict")[:64], body, context, form.visitor.principal)
    return back_to(answer.headers["Location"].removeprefix("/v1"))


@router.post("/candidates/{candidate}/badge")
def publish(candidate: CandidatePath, context: Ctx, form: Sent) -> Response:
    """Let everybody see the verdicts about a candidate as badges, or nobody."""
    accounts.require(form.visitor.principal, "submit")
    body = schemas.BadgeRequest(public=form.get("public") == "yes")
    badges.set_badge(candidate, body, context, form.visitor.principal)
    return back_to(f"/candidates/{candidate}")


@router.get("/decisions")
def decisions(
    request: Request,
    context: Ctx,
    visitor: Seen,
    cursor: paging.Cursor = None,
) -> Response:
    """Decisions, newest first."""
    accounts.require(visitor.principal, "read")
    page = v1.list_decisions(request, Response(), context, visitor.principal, None, cursor, ROWS)
    return render(request, "decisions.html", title="Decisions", twin="/v1/decisions", page=page)


@router.get("/decisions/{decision_id}")
def decision(request: Request, decision_id: DecisionPath, context: Ctx, visitor: Seen) -> Response:
    """A decision: its rules with intervals against their bars, what it rests on, and how to check it."""
    accounts.require(visitor.principal, "read")
    with context.database.read() as session:
        row = decision_queries.get(session, context.settings, visitor.principal, decision_id)
        document = v1.decision_document(context, session, visitor.principal, row)
        lacking = _not_measured(session, document.job)
    rules = [view(rule) for rule in document.rules]
    counts = {
        word: sum(rule["verdict"] == word for rule in document.rules) for word in ("fail", "inconclusive", "pass")
    }
    settle = advice(document.verdict, document.rules, kinds.names(), lacking)
    return render(
        request, "decision.html", title=f"{document.verdict}: decision {decision_id[:8]}",
        twin=f"/v1/decisions/{decision_id}", decision=document, rules=rules, counts=counts, settle=settle, seq=row.seq,
    )  # fmt: skip


def _not_measured(session: Session, job_id: str | None) -> Sequence[Mapping[str, Any]]:
    """What the check that asked for a decision, as a job of its own, could not measure; nothing of other jobs."""
    job = session.get(tables.Job, job_id) if job_id else None
    parent = job.parent_id if job else None
    study = job_queries.results_of(session, [parent]).get(parent) if parent else None
    lacking: Sequence[Mapping[str, Any]] = (study or {}).get("not_measured", ())
    return lacking


def view(rule: Mapping[str, Any]) -> RuleView:
    """A rule as the page shows it."""
    word, provenance = RULE_WORDS[rule["verdict"]], str(rule.get("provenance") or "")
    if accepts := rule.get("accepts"):
        return RuleView(rule, word, provenance or numbers.UNKNOWN, " or ".join(accepts), Markup(), "", "")
    training = f"{provenance}, retrained here by the claimed recipe" if rule.get("retrained") else provenance
    training += AGREES.get(str(rule.get("comparable")), "")
    estimate = Estimate(value=rule.get("value"), low=rule.get("low"), high=rule.get("high"))
    row = IntervalRow(
        label=str(rule["title"]), estimate=estimate, bar=rule["threshold"], op=rule["op"], tone=tone(rule["verdict"])
    )
    end = {"low": "lower end", "high": "upper end"}.get(str(rule.get("bound")), "value")
    need = f"{end} {'≥' if rule['op'] == '>=' else '≤'} {numbers.compact(rule['threshold'])}"
    figure = numbers.interval(estimate) if estimate.value is not None else numbers.UNKNOWN
    return RuleView(rule, word, figure, need, figures.gauge(row), training, _settled(rule))


def _settled(rule: Mapping[str, Any]) -> str:
    """Whether a rule's figure was settled, and by which change; empty where the rule does not ask."""
    if rule.get("settled") is None:
        return ""
    word = "settled" if rule["settled"] else "not settled"
    if rule.get("change") is None:
        return f"{word}: its change was not measured"
    change = numbers.interval(Estimate.model_validate(rule["change"]))
    return f"{word}: last doubling of training {change}, within ±{numbers.compact(rule['margin'])} needed"
