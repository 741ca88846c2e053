"""The report of a pipeline: one HTML page that needs nothing but itself. Verdict first, then its evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.orm import Session

from api import svg
from api.report_data import Json, ReportData, Stage, dig, gather, items, part, real
from api.report_figures import Table, interval
from api.report_panels import absence, panels
from husai_core import kinds
from husai_core.release.advice import advice
from services.artifacts import Store
from services.tables import Job

ARCHITECTURES = {"topk": "TopK", "relu": "ReLU"}
MARKS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "none": "…"}
ENVIRONMENT = Environment(
    loader=PackageLoader("api"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Verdict:
    """The banner: a word, why, and what would settle it."""

    word: str
    why: str
    settle: Sequence[str] = ()

    @property
    def mark(self) -> str:
        """A sign that says the verdict without colour."""
        return MARKS[self.word]


@dataclass(frozen=True)
class RuleView:
    """One row of the gate table."""

    rule: Json
    figure: str
    need: str
    plot: Markup
    verdict: Verdict


def render(session: Session, store: Store, job: Job) -> str:
    """The report of a `study.pipeline` job in any state, as an HTML page."""
    return page(gather(session, store, job))


def page(data: ReportData) -> str:
    """The report as an HTML page: a pure function of its data."""
    gate = data.stage("gate").result
    return ENVIRONMENT.get_template("report.html").render(
        data=data,
        gate=gate,
        title=title(data),
        facts=facts(data),
        verdict=verdict(data),
        rules=[rule_view(rule) for rule in items(gate.get("rules"))],
        no_gate=absence(data.stage("gate")),
        controls=controls(gate),
        floors=floors(data),
        evidence=evidence(data),
        panels=panels(data),
        stages=stages(data),
        environment=environment(data),
        digests=digests(data),
        manifests=manifests(data),
        commands=commands(data),
        date=date(data.finished_at or data.created_at),
    )


def title(data: ReportData) -> str:
    """What was judged, in a few words."""
    recipe = part(data.stage("sae").spec, "recipe")
    name = ARCHITECTURES.get(str(recipe.get("architecture")), recipe.get("architecture"))
    parts = [f"{name} sparse autoencoder" if name else "Sparse autoencoder"]
    parts += [f"{recipe['d_sae']} latents"] if "d_sae" in recipe else []
    parts += [f"k = {recipe['k']}"] if recipe.get("k") is not None else []
    return ", ".join(parts)


def facts(data: ReportData) -> list[tuple[str, str]]:
    """The line below the title: name and value of what identifies the candidate and the run."""
    spec, model = data.stage("activations").spec, data.stage("transformer").spec
    seeds = dig(data.stage("sae").spec, "seeds", [])
    candidate = data.stage("gate").result.get("candidate") or data.pipeline.result.get("candidate")
    modulus = model.get("p") or dig(model, "dataset.p")
    found = {
        "candidate": short(candidate) if candidate else None,
        "hook": spec.get("hook_name"),
        "position": spec.get("position"),
        "model": f"transformer, addition modulo {modulus}" if modulus else None,
        "seeds": " ".join(str(seed) for seed in seeds),
        "policy": data.stage("gate").result.get("policy"),
        "pipeline": data.pipeline.job,
        "finished" if data.finished_at else "started": date(data.finished_at or data.created_at),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def verdict(data: ReportData) -> Verdict:
    """The banner's word and sentence."""
    gate = data.stage("gate").result
    word = str(gate.get("verdict"))
    if word not in MARKS:
        return Verdict("none", f"The gate has not decided. {_progress(data)}")
    rules = items(gate.get("rules"))
    failed, open_ = ([r for r in rules if r.get("verdict") == word] for word in ("fail", "inconclusive"))
    settle = [f"{', '.join(names)}: {way}" for way, names in advice(word, open_, kinds.names()).items()]
    why = _why(gate, len(rules), failed, open_)
    return Verdict(word, why if data.pipeline.state == "succeeded" else f"{why} {_progress(data)}", settle)


def _progress(data: ReportData) -> str:
    """State of the pipeline, and what went wrong in it."""
    every = list(data.stages.values())
    done = sum(stage.state == "succeeded" for stage in every)
    told = [f"The pipeline is in state {data.pipeline.state}; {done} of {len(every)} stages have succeeded."]
    for stage in (data.pipeline, *every):
        if stage.detail and stage.state != "succeeded":
            told.append(f"{stage.name.removeprefix('study.').capitalize()}: {stage.detail.rstrip('.')}.")
    return " ".join(told)


def _why(gate: Json, n: int, failed: Sequence[Json], undecided: Sequence[Json]) -> str:
    test = part(gate, "self_test")
    if test.get("passed") is False:
        return (
            f"The gate could not tell its own controls apart, so it says nothing about this SAE: {test.get('reason')}."
        )
    missed = "; ".join(f"{rule.get('name')}, {rule.get('reason')}" for rule in failed)
    names = ", ".join(str(rule.get("name")) for rule in undecided)
    rest = f" {len(undecided)} cannot be decided: {names}." if undecided else ""
    if failed:
        return f"{len(failed)} of {n} rules {'is' if len(failed) == 1 else 'are'} missed: {missed}.{rest}"
    if undecided:
        return f"None of {n} rules is missed, but{rest}"
    return f"All {n} rules hold, each by the unfavourable end of its interval."


def rule_view(rule: Json) -> RuleView:
    """A rule outcome with its interval plot."""
    value, low, high = (real(rule.get(key)) for key in ("value", "low", "high"))
    threshold, op, bound = real(rule.get("threshold")) or 0.0, str(rule.get("op")), str(rule.get("bound"))
    sign = {">=": "≥", "<=": "≤"}.get(op, op)
    end = {"low": "lower end", "high": "upper end"}.get(bound, "value")
    word = str(rule.get("verdict")) if rule.get("verdict") in MARKS else "none"
    need = f"{end} {sign} {svg.compact(threshold)}"
    text = f"{rule.get('title')} {interval(rule)}; needed: {need}; {word}"
    plot = svg.gauge(value, low, high, threshold, op=op, bound=bound, verdict=word, title=text)
    return RuleView(
        rule, interval(rule) if value is not None else "–", need, plot, Verdict(word, str(rule.get("reason")))
    )


def controls(gate: Json) -> Table:
    """The gate's self-test: what it made of the two worlds whose answer is known."""
    rows = []
    for key, name, wanted in (("good", "known good", "must pass"), ("bad", "known bad", "must not pass")):
        control = part(gate, f"self_test.{key}")
        if control:
            rows.append([name, wanted, interval(control), str(control.get("verdict")), str(control.get("reason"))])
    return Table(["control", "expected", "figure", "verdict", "why"], rows, text=True)


def stages(data: ReportData) -> Table:
    """State of every job of the pipeline."""
    rows = [[s.name, s.kind, s.state, s.job, s.detail or s.reason or ""] for s in data.stages.values()]
    return Table(["stage", "kind", "state", "job", ""], rows, text=True)


def environment(data: ReportData) -> Table:
    """What the stages ran on: one value where all agree, otherwise each value with the stages that have it."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage in data.stages.values():
        for name, value in surroundings(stage.manifest).items():
            if value:
                found.setdefault(name, {}).setdefault(value, []).append(stage.name)
    rows = [[name, _agreed(values)] for name, values in found.items()]
    return Table(["", ""], [*rows, ["seeds", seeds(data)]] if rows else [], text=True)


def _agreed(values: Mapping[str, Sequence[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())


def surroundings(manifest: Json) -> dict[str, str]:
    """The facts of a manifest on which repetition depends, in words; empty where unknown."""
    commit, dirty = dig(manifest, "git.commit", ""), dig(manifest, "git.dirty")
    state = {True: ", with uncommitted changes", False: ", clean"}.get(dirty, "") if commit else ""
    libraries = part(manifest, "capability.libraries")
    cpu, threads = part(manifest, "capability.cpu"), dig(manifest, "capability.threads", "")
    return {
        "commit": f"{commit}{state}",
        "dependency lock": str(dig(manifest, "capability.lock", "")),
        "installed packages": str(dig(manifest, "capability.environment", "")),
        "device": " ".join(
            str(v) for v in (dig(manifest, "capability.device", ""), dig(manifest, "capability.cuda.device", "")) if v
        ),
        "CPU": ", ".join(str(v) for v in (cpu.get("model"), cpu.get("capability")) if v),
        "threads": str(threads),
        "Python": " on ".join(
            str(v) for v in (dig(manifest, f"capability.{key}") for key in ("python", "platform")) if v
        ),
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items()),
        "NumPy BLAS": str(dig(manifest, "capability.blas.numpy", "")),
    }


def seeds(data: ReportData) -> str:
    """Every seed of every stage, by the field that names it."""
    named = [(stage.name, part(stage.manifest, "seeds")) for stage in data.stages.values()]
    parts = [f"{name}.{field} {_list(value)}" for name, found in named for field, value in found.items()]
    return "; ".join(parts)


def _list(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def digests(data: ReportData) -> Table:
    """Every artifact that went into or came out of a stage."""
    rows = []
    for stage in data.stages.values():
        for direction, ports in (("in", stage.inputs), ("out", stage.outputs)):
            rows += [[stage.name, direction, port, digest] for port, found in ports.items() for digest in found]
    return Table(["stage", "", "port", "sha256"], rows, text=True)


def evidence(data: ReportData) -> Table:
    """The results that the gate was given, and the rules that read each."""
    gate = data.stage("gate").result
    rules = items(gate.get("rules"))
    rows = []
    for item in items(gate.get("evidence")):
        readers = ", ".join(
            str(rule.get("name")) for rule in rules if rule.get("evidence_digest") == item.get("digest")
        )
        at = real(item.get("produced_at"))
        rows.append([str(item.get("kind")), readers or "–", date(at) if at else "–", str(item.get("digest"))])
    for key in ("good", "bad"):
        if artifact := dig(gate, f"self_test.{key}.artifact"):
            rows.append([f"known-{key} control", "self-test", "–", artifact])
    return Table(["evidence", "read by", "produced", "sha256"], rows, text=True)


def floors(data: ReportData) -> Table:
    """Qualities below which the pipeline would have failed."""
    found = items(data.pipeline.result.get("floors"))
    rows = [[str(f.get("name")), svg.number(real(f.get("value"))), svg.number(real(f.get("floor")))] for f in found]
    return Table(["quality", "value", "floor"], rows, "Floors of the pipeline, all reached")


def manifests(data: ReportData) -> list[tuple[str, str]]:
    """Name and JSON text of each manifest."""
    every = [Stage(**{**vars(data.pipeline), "name": "pipeline"}), *data.stages.values()]
    return [(s.name, json.dumps(s.manifest, indent=2, ensure_ascii=False)) for s in every if s.manifest]


def commands(data: ReportData) -> list[tuple[str, str]]:
    """What a reader types to repeat and to check: (purpose, commands)."""
    job, decision = data.pipeline.job, data.decision
    check = [f"husai gate show {decision} --bundle {decision}.json", f"husai verify {decision}.json"]
    found = {
        "Execute everything again, reuse nothing, compare every artifact byte for byte": f"husai rerun {job} --check",
        "Fetch the signed decision, then recompute it from its evidence, offline": "\n".join(check) if decision else "",
        "Write checkpoints, results and manifests as plain files": f"husai export {job} husai-{job}",
        "Write this page again": f"husai report {job}",
    }
    return [(purpose, command) for purpose, command in found.items() if command]


def date(at: float) -> str:
    """Unix seconds as a UTC date and minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def short(digest: str) -> str:
    """The first characters of a digest, enough to tell it by eye."""
    return digest[:12]
