"""Can these SAEs be released? Measures finished SAEs, whoever trained them, as far as what is known of them allows.

`saes` are one SAE or siblings that differ in their seed alone; the first is the candidate that the policy judges.
benchmark.core measures every one of them inside its network, and benchmark.features describes the candidate's latents.
From two siblings on, stress.intervention compares in the network what latents and their twins do, rows are collected at
the hook, and the other stresses follow: their controls are trained by `recipe`, or else by the recipe that the SAEs'
own files claim.

What cannot be measured is left out with the reason and with what it would take, and so is what was tried and failed:
the policy then judges what there is. `source: model` is for SAEs on a network for addition, which need the
`transformer` and the `activations` that they were trained on, and of which every stress is measured. SAEs that were
trained here always need these activations.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import check_rows, rule_panels, work
from husai_core.kinds.common.measurements import (
    BENCHMARKS,
    CHECKED,
    INTERVENTION,
    MORE_ROWS,
    STRESSES,
    Sources,
    Subject,
    jobs,
)
from husai_core.kinds.common.stages import ANSWERS, Stage, stage_of
from husai_core.kinds.common.stress import StressSpec
from husai_core.kinds.kind import Child, Done, Facts, From, Kind, Port, Work
from husai_core.models import hooks
from husai_core.release.advice import lacking
from husai_core.release.decide import Decision
from husai_core.release.judge import RuleOutcome
from husai_core.stability import origins

ROWS, GATE = "rows", "gate"
LAYER = re.compile(r"blocks\.\d+\.")
INPUTS = {
    "saes": Port("sae", "the candidate, and its siblings of other seeds", many=True),
    "transformer": Port("transformer", "the network that they read, unless `model` names it", required=False),
    "activations": Port("activations", "the rows that they were trained on; imported SAEs may lack it", required=False),
    "text": Port("upload", "language only: .txt and .md files to measure on", many=True, required=False),
    "shifted_text": Port(
        "upload",
        "language only: texts of other domains, one upload each; the built-in ones if there are none",
        many=True,
        required=False,
    ),
}


class Spec(StressSpec):
    """Which network the SAEs read, how much is read of it, and which policy decides."""

    source: Literal["language", "model"] = Field(
        "language", description="what they read: a language model, or a network for addition (`model`)"
    )
    model: str | None = Field(
        None, max_length=200, description="a built-in language model or Hugging Face id; else the input's"
    )
    hook_name: str | None = Field(
        None, max_length=200, description="TransformerLens hook point that the SAEs read; needed to collect rows there"
    )
    context: int | None = Field(
        None, ge=2, le=131_072, description="language only: tokens per sequence; null: as in the activations, else 128"
    )
    max_rows: int = Field(200_000, ge=16, le=10**10, description="language only: most rows that stresses read")
    reading: dict[str, Any] = Field(
        default_factory=dict,
        description="language only: other fields of train.activations, those with which `activations` were read",
    )
    max_sequences: int = Field(
        512, ge=3, le=100_000, description="most held-out sequences on which SAEs are measured inside their network"
    )
    intervention_latents: int = Field(
        32, ge=2, le=10_000, description="latents of each SAE whose effects are compared with their twins'"
    )
    policy: str = Field("own", description="the release policy that decides")
    policy_document: dict[str, Any] | None = Field(
        None,
        description="a policy of the lab's own in full; the service fills it in",
        json_schema_extra={"stamp": "policy"},
    )
    as_of: str | None = Field(
        None, description="instant at which evidence must be fresh (RFC 3339)", json_schema_extra={"stamp": "now"}
    )

    @model_validator(mode="after")
    def _composes(self) -> Self:
        kinds.get("release.gate").spec.model_validate(self.of_gate)
        if self.model is not None and (problem := assets.name_problem(self.model)):
            raise ValueError(problem)
        if self.source == "language":
            kinds.get("train.activations").spec.model_validate(self.read)
        return self

    @property
    def read(self) -> dict[str, Any]:
        """How rows are read from a language model, wherever in it."""
        fields = {"source": "language", "model": self.model, "context": self.context, "max_rows": self.max_rows}
        return {name: value for name, value in fields.items() if value is not None} | self.reading

    @property
    def of_gate(self) -> dict[str, Any]:
        """The gate's spec."""
        return {"policy": self.policy, "policy_document": self.policy_document, "as_of": self.as_of}

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse no network, or two, and a network for addition without the rows that the SAEs were trained on."""
        if (self.model is None) == ("transformer" not in bound):
            raise UserError("give either model or a transformer input, not both")
        if self.source == "model" and not {"transformer", "activations"} <= set(bound):
            raise UserError("source model needs the inputs transformer and activations")

    def check_facts(self, facts: Facts) -> None:
        """Refuse a recipe or a hook that is not the SAEs', and a network that they cannot read."""
        saes = facts.get("saes", ())
        if not saes or not all(saes):
            return
        if self.recipe:
            origins.check_siblings(saes, self.recipe)
        if self.hook_name and saes[0].get("husai", {}).get("imported"):
            origins.check_rows(saes[0], {"hook_name": self.hook_name})
        if self.source == "language":
            network = hooks.built_in(self.model) if self.model else work.first(facts, "transformer")
            origins.check_reading(saes[0], self.hook_name, network)


class NotMeasured(BaseModel):
    """A measurement that was left out or failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    reason: str
    would_take: str = Field(description="what would let it be measured")


class Result(BaseResult):
    """The verdict on the first SAE, what it rests on, and what it lacks."""

    verdict: Literal["pass", "fail", "inconclusive"]
    candidate: str = Field(description="digest of the SAE checkpoint that was judged")
    policy: str
    decision: str = Field(description="digest of the decision artifact")
    reasons: list[str]
    rules: list[RuleOutcome]
    stages: list[Stage] = Field(description="what was measured")
    not_measured: list[NotMeasured]


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """First the rows and what needs none; then the stresses that are possible; then the gate over what succeeded.

    Where nothing did, no policy is asked, and nothing is signed.
    """
    if not done:
        return _first_round(spec, inputs)
    if GATE in done:
        return []
    possible = [name for name in STRESSES if _why_not(spec, inputs, name, done) is None]
    if possible and not done.keys() & set(STRESSES):
        return [child for name in possible for child in _stress(spec, inputs, name)]
    evidence = [From(name, "result") for name in CHECKED if name in done and done[name].state == "succeeded"]
    if not evidence:
        return []
    return [Child(GATE, "release.gate", spec.of_gate, {"candidate": inputs.get("saes", [])[:1], "evidence": evidence})]


def _first_round(spec: Spec, inputs: Mapping[str, list[str]]) -> list[Child]:
    alone = len(inputs.get("saes", ())) < 2
    names = BENCHMARKS if alone else (*BENCHMARKS, INTERVENTION)
    in_network = [child for name in names for child in jobs(name, _subject(spec, inputs))]
    if alone or inputs.get("activations"):
        return in_network
    if spec.hook_name is None:
        raise UserError(
            "set hook_name (husai check: --hook-name HOOK), the hook of the SAEs, so that rows can be collected there"
        )
    return [*check_rows.collect("activations", spec.read, spec.hook_name, inputs).children, *in_network]


def _stress(spec: Spec, inputs: Mapping[str, list[str]], name: str) -> list[Child]:
    """A stress of the SAEs, behind the jobs that collect more rows for it."""
    rows: Sources = inputs.get("activations") or [From(ROWS, "activations")]
    return jobs(name, _subject(spec, {**inputs, "activations": rows}))


def _subject(spec: Spec, inputs: Mapping[str, Sources]) -> Subject:
    """The SAEs and what they are measured with."""
    fields = {name: getattr(spec, name) for name in ("model", "hook_name", "context")}
    held_out = {name: value for name, value in fields.items() if value is not None}
    return Subject(
        network=spec.source,
        sources={port: sources for port, sources in inputs.items() if sources},
        held_out=held_out | {"max_sequences": spec.max_sequences},
        intervention={"n_latents": spec.intervention_latents},
        recipe=spec.recipe.model_dump(mode="json") if spec.recipe else None,
        read=spec.read,
        hook_name=spec.hook_name or "",
    )


def _why_not(spec: Spec, bound: Mapping[str, Sequence[Any]], name: str, done: Mapping[str, Done]) -> NotMeasured | None:
    """Why a measurement is not even tried, with what it would take."""
    kind = CHECKED[name]
    if name not in BENCHMARKS and len(bound.get("saes", ())) < 2:
        reason = "SAEs of several seeds are compared, and this is one SAE without its siblings"
        would_take = "siblings: the same training with other seeds, checked together; three in all give an interval"
    elif spec.source == "language" and MORE_ROWS.get(name) and spec.hook_name is None:
        reason = "nothing says at which hook the SAEs read, where its rows have to be collected"
        would_take = "hook_name: `husai check --hook-name HOOK`"
    elif spec.source == "language" and name == "transcoder" and LAYER.match(str(spec.hook_name)) is None:
        reason = f"the hook {spec.hook_name} lies in no layer, so it has no MLP to compare with"
        would_take = "SAEs on a layer of the network"
    elif name in STRESSES and ROWS in done and done[ROWS].state != "succeeded":
        reason = f"no rows could be collected: {_end(done[ROWS])}"
        would_take = RETRY
    else:
        return None
    return NotMeasured(kind=kind, reason=reason, would_take=would_take)


RETRY = "mending this and checking again; what was measured already is taken from its stored result"


def _end(ended: Done) -> str:
    """How a job ended that did not succeed."""
    return ended.reason or ended.state


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The verdict with its rules, what was measured, and what was not.

    Raises:
        UserError: nothing could be measured, or the gate made no decision.
    """
    if GATE not in done:
        ends = "; ".join(f"{name}: {_end(ended)}" for name, ended in done.items() if ended.state != "succeeded")
        raise UserError(f"nothing could be measured, so no policy was asked: {ends}")
    gate = done[GATE]
    if gate.state != "succeeded" or gate.result is None:
        raise UserError(f"the gate made no decision: {_end(gate)}")
    decision = Decision.model_validate(gate.result)
    results = {name: done[name].result for name in CHECKED if name in done and done[name].state == "succeeded"}
    left_out = [_left_out(spec, inputs.ports, name, done) for name in CHECKED if name not in results]
    return Result(
        verdict=decision.verdict,
        candidate=decision.candidate,
        policy=decision.policy,
        decision=gate.outputs["decision"][0],
        reasons=decision.reasons,
        rules=decision.rules,
        stages=[
            stage_of(name, CHECKED[name], "succeeded", kinds.get(CHECKED[name]).result.model_validate(result))
            for name, result in results.items()
        ],
        not_measured=[*left_out, *_beyond(decision.rules)],
    )


def _left_out(spec: Spec, bound: Mapping[str, Sequence[Any]], name: str, done: Mapping[str, Done]) -> NotMeasured:
    """Why there is no result of a measurement."""
    never_tried = _why_not(spec, bound, name, done)
    if never_tried:
        return never_tried
    ends = {child: ended for child, ended in done.items() if child.startswith(f"{ROWS}-{name}")} | {name: done[name]}
    reason = next(_end(ended) for ended in ends.values() if ended.state != "succeeded")
    return NotMeasured(kind=CHECKED[name], reason=reason, would_take=RETRY)


def _beyond(rules: Sequence[RuleOutcome]) -> list[NotMeasured]:
    """The kinds that the policy reads beside those that are measured here, each once, where they decided nothing."""
    beyond: dict[str, NotMeasured] = {}
    for rule in rules:
        if rule.verdict == "inconclusive" and rule.evidence not in CHECKED.values():
            installed = rule.evidence in kinds.names()
            reason = (
                "the policy reads it, and a check does not run it" if installed else "this version has no such kind"
            )
            would_take = rule.settle if installed and rule.settle else "a version of HUSAI that has it"
            beyond.setdefault(rule.evidence, NotMeasured(kind=rule.evidence, reason=reason, would_take=would_take))
    return list(beyond.values())


def present(result: Result) -> list[panels.AnyPanel]:
    """The verdict, its rules, why some are not met, and what was not measured; what each job shows comes after it."""
    figures = [
        panels.Figure(label="policy", value=result.policy),
        panels.Figure(label="candidate", value=result.candidate, format="digest"),
        panels.Figure(label="decision artifact", value=result.decision, format="digest"),
    ]
    count = len(result.stages) + len(result.not_measured)
    measured = f"{len(result.stages)} of {count} measurements were made"
    text = f"{ANSWERS[result.verdict]}. {rule_panels.tally(result.rules)}; {measured}."
    return [
        panels.Headline(text=text, tone=rule_panels.TONES[result.verdict], figures=figures),
        rule_panels.table(result.rules),
        *rule_panels.bars(result.rules),
        *_not_met(result.rules),
        *_missing(result.not_measured),
    ]


def _not_met(rules: Sequence[RuleOutcome]) -> list[panels.AnyPanel]:
    """Why the rules that have a figure are not met or undecided."""
    pairs = [(rule.name, rule.reason) for rule in rules if rule.verdict != "pass" and rule.value is not None]
    title = "Why measured rules are not met or undecided"
    return [panels.Text(title=title, paragraphs=rule_panels.grouped(pairs))] if pairs else []


def _missing(not_measured: Sequence[NotMeasured]) -> list[panels.AnyPanel]:
    """What was not measured, with equal reasons together."""
    pairs = [(missing.kind, f"{lacking(missing.model_dump())}.") for missing in not_measured]
    title = "What could not be measured"
    return [panels.Text(title=title, paragraphs=rule_panels.grouped(pairs))] if pairs else []


def estimate(spec: Spec, facts: Facts) -> Work:
    """All jobs, as far as they can be known."""
    from husai_core.kinds import plan_estimate

    return plan_estimate.study(plan, spec, facts)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    plan=plan,
    summarise=summarise,
    estimate=estimate,
    present=present,
    children=("train.activations", *CHECKED.values(), "release.gate"),
)
