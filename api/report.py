"""The report of a job: one HTML page that needs nothing but itself. The answer first, then what it rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from markupsafe import Markup
from sqlalchemy.orm import Session

from api import provenance
from api.pages.text import STORED
from husai_core.panels import AnyPanel, Headline
from husai_core.render import html
from husai_core.render.numbers import duration
from husai_core.render.svg import tag
from services.artifacts import Store
from services.queries import jobs as job_queries
from services.queries import panels as panel_queries
from services.queries.jobs import JobView
from services.queries.panels import JobPanels
from services.states import State
from services.tables import Job

NONE = Markup("")
FAILURES = (State.FAILED, State.TIMED_OUT)
STYLE = """
body.husai { margin: 0; }
.husai main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
.husai h1 { font-size: 1.75rem; line-height: 1.2; margin: 4px 0 0; letter-spacing: -.012em; text-wrap: balance; }
.husai h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 2px; }
.husai .over, .husai footer { color: var(--soft); font-size: .84rem; }
.husai .question { color: var(--soft); max-width: 76ch; margin: 6px 0 0; }
.husai dl.facts { display: flex; flex-wrap: wrap; gap: 10px 30px; margin: 18px 0 26px; }
.husai dl.facts dt { color: var(--soft); font-size: .8125rem; }
.husai dl.facts dd { margin: 0; font-size: .92rem; overflow-wrap: anywhere; }
.husai nav { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: .88rem; margin-top: 26px; }
.husai a { color: var(--link); text-underline-offset: 2px; }
.husai main > section { margin-top: 44px; padding-top: 20px; border-top: 1px solid var(--hair); }
.husai pre { background: var(--panel); border-radius: 6px; padding: 11px 14px; margin: 6px 0; line-height: 1.45;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.husai dl.commands dt { margin-top: 12px; font-size: .93rem; }
.husai dl.commands dd { margin: 0; }
.husai footer { margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--hair); }
@media (max-width: 760px) { .husai main { padding: 24px 16px 48px; } .husai h1 { font-size: 1.45rem; } }
@media print { @page { margin: 15mm 14mm; } .husai main { padding: 0; max-width: none; } .husai nav { display: none; } }
"""


def render(session: Session, store: Store, job: Job) -> str:
    """The report of a job of any kind and in any state, as an HTML page."""
    shown = panel_queries.of_job(session, job)
    rows = [job, *job_queries.children(session, job)]
    views = job_queries.views(session, rows, results=False)
    family = {view.job.name or view.job.kind: view for view in views[1:]}
    return page(shown, views[0], family, store)


def page(shown: JobPanels, view: JobView, children: Mapping[str, JobView], store: Store) -> str:
    """The page from what there is to see of a job and of its children, which are named."""
    job = view.job
    family = {"the study" if children else "the job": view, **children}
    manifests = {name: provenance.manifest_of(store, member.outputs) for name, member in family.items()}
    sections = [_child(child, children.get(child.name or child.kind)) for child in shown.children]
    origin: list[AnyPanel] = [provenance.environment(manifests), provenance.digests(family)]
    if children:
        origin.insert(1, provenance.stages(children))
    main = tag(
        "main",
        _header(shown, view),
        html.fragment(shown.panels),
        _links(shown),
        *sections,
        tag("section", tag("h2", "Provenance"), html.fragment(origin), _manifests(manifests), id="provenance"),
        tag("section", tag("h2", "Repeat and verify"), _commands(job), id="repeat"),
        tag("footer", f"HUSAI decides whether a sparse autoencoder can be released. Job {job.id}. {_date(view)}."),
    )
    return html.page(f"{job.kind} {job.id[:8]}: {job.state}", main, STYLE)


def _header(shown: JobPanels, view: JobView) -> Markup:
    job = view.job
    facts = {"job": job.id, "owner": view.owner, "device": job.device, "made": _instant(job.created_at)}
    if job.finished_at is not None:
        started = view.execution.started_at if view.execution and not shown.children else None
        took = duration(max(0.0, job.finished_at - (started or job.created_at)))
        facts["took"] = STORED if view.reused_from else took
    if job.labels:
        facts["labels"] = ", ".join(job.labels)
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    title = tag("h1", job.kind if job.name is None else f"{job.name}: {job.kind}")
    question = tag("p", shown.title, class_="question") if shown.title != job.kind else NONE
    return tag(
        "header", tag("div", "HUSAI report", class_="over"), title, question, tag("dl", *pairs, class_="facts"),
        _state(job),
    )  # fmt: skip


def _state(job: Job) -> Markup:
    """Where a job stands that has no result; nothing for one that has."""
    if job.state == State.SUCCEEDED:
        return NONE
    words = str(job.state).replace("_", " ")
    detail = job.detail or job.reason
    text = f"{words.capitalize()}: {detail}" if detail else f"{words.capitalize()}."
    return html.fragment([Headline(text=text, tone="bad" if job.state in FAILURES else "unknown")])


def _links(shown: JobPanels) -> Markup:
    targets = [(_anchor(child), child.name or child.kind) for child in shown.children]
    targets += [("provenance", "Provenance"), ("repeat", "Repeat and verify")]
    links = [tag("a", name, href=f"#{anchor}") for anchor, name in targets]
    return tag("nav", *links, aria_label="Sections")


def _anchor(child: JobPanels) -> str:
    return f"job-{child.job}"


def _child(child: JobPanels, view: JobView | None) -> Markup:
    state = _state(view.job) if view else NONE
    note = tag("p", f"{child.title} ({child.kind})", class_="note")
    panels = html.fragment(child.panels) if child.panels else NONE
    return tag("section", tag("h2", child.name or child.kind), note, state, panels, id=_anchor(child))


def _manifests(manifests: Mapping[str, provenance.Manifest]) -> Markup:
    texts = {name: json.dumps(whole, indent=2, ensure_ascii=False) for name, whole in manifests.items() if whole}
    return NONE.join(
        tag("details", tag("summary", f"Manifest of {name}"), tag("pre", text)) for name, text in texts.items()
    )


def _commands(job: Job) -> Markup:
    lines = provenance.commands(job.id, State(job.state)).items()
    pairs = [tag("div", tag("dt", purpose), tag("dd", tag("pre", line))) for purpose, line in lines]
    return tag("dl", *pairs, class_="commands")


def _date(view: JobView) -> str:
    at = view.job.finished_at
    return f"Finished {_instant(at)}" if at is not None else f"State: {view.job.state}"


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
