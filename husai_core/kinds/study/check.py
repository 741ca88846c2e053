"""Can these SAEs be released? Measures finished SAEs, whoever trained them, as far as what is known of them allows.

`saes` are one SAE or siblings that differ in their seed alone; the first is the candidate that the policy judges.
benchmark.core measures every one of them inside its network, and benchmark.features describes the candidate's latents.
From two siblings on, stress.intervention compares in the network what latents and their twins do, rows are collected at
the hook, and the other stresses follow: their controls are trained by `recipe`, or else by the recipe that the SAEs'
own files claim. By it SAEs are trained on these rows, too, whose halves say whether the training had settled, and which
show whether the recipe makes such SAEs at all. One or two imported SAEs take them as siblings, so that a recipe
suffices for all stresses that read rows.

What cannot be measured is left out with the reason and with what it would take, and so is what was tried and failed:
the policy then judges what there is. `source: model` is for SAEs on a network for addition, which need the
`transformer` and the `activations` that they were trained on, and of which every stress is measured. SAEs that were
trained here always need these activations.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult, RecipeCheck
from husai_core.job import Inputs, Job
from husai_core.kinds.common import (
    check_retraining,
    check_rows,
    diagnosis,
    not_measured,
    rule_panels,
    stress_panels,
    work,
)
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
from husai_core.kinds.common.not_measured import RETRY, NotMeasured, end
from husai_core.kinds.common.stages import ANSWERS, Stage, stage_of
from husai_core.kinds.common.stress import StressSpec
from husai_core.kinds.kind import Child, Done, Facts, From, Kind, Port, Work
from husai_core.models import hooks
from husai_core.release.decide import Decision
from husai_core.release.judge import RuleOutcome
from husai_core.stability import origins

ROWS, GATE, RETRAINED = "rows", "gate", check_retraining.NAME
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
    retrained_seeds: int | None = Field(
        None,
        ge=check_retraining.LEAST,
        le=64,
        description="SAEs that are trained by the recipe of imported ones; null: as many as these, at least 3, and 4 "
        "beside a single one",
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
    recipe_check: RecipeCheck | None = Field(
        None, description="imported SAEs beside such as were trained here by the claimed recipe, where there are some"
    )
    may_be_wrong: list[str] = Field([], description="faults that the figures of benchmark.core look like")


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """First the rows and what needs none; then, by the recipe of imported SAEs, more of them; then the stresses that
    are possible; then the gate over what succeeded.

    Where nothing did, no policy is asked, and nothing is signed.
    """
    if not done:
        return _first_round(spec, inputs)
    if GATE in done:
        return []
    if RETRAINED not in done and (retraining := _retraining(spec, inputs, done)):
        return retraining
    possible = [name for name in STRESSES if _why_not(spec, inputs, name, done) is None]
    if possible and not done.keys() & set(STRESSES):
        return [child for name in possible for child in _stress(spec, inputs, name, done)]
    evidence = [From(name, "result") for name in CHECKED if name in done and done[name].state == "succeeded"]
    if not evidence:
        return []
    return [Child(GATE, "release.gate", spec.of_gate, {"candidate": inputs.get("saes", [])[:1], "evidence": evidence})]


def _first_round(spec: Spec, inputs: Mapping[str, list[str]]) -> list[Child]:
    alone = len(inputs.get("saes", ())) < 2
    names = BENCHMARKS if alone else (*BENCHMARKS, INTERVENTION)
    in_network = [child for name in names for child in jobs(name, _subject(spec, inputs))]
    if not inputs.get("saes") or (alone and spec.recipe is None):
        return in_network
    if not inputs.get("activations") and spec.hook_name is None:
        raise UserError(
            "set hook_name (husai check: --hook-name HOOK), the hook of the SAEs, so that rows can be collected there"
        )
    return [*(_retraining(spec, inputs, {}) or _rows(spec, inputs, {})[0]), *in_network]


def _rows(spec: Spec, inputs: Mapping[str, Sources], done: Mapping[str, Done]) -> tuple[list[Child], Sources]:
    """The SAEs' own rows: the jobs that have yet to collect them, and where they are found."""
    if rows := inputs.get("activations"):
        return [], rows
    collected = check_rows.collect("activations", spec.read, spec.hook_name or "", inputs)
    return [child for child in collected.children if child.name not in done], collected.sources["activations"]


def _retraining(spec: Spec, inputs: Mapping[str, Sources], done: Mapping[str, Done]) -> list[Child]:
    """The training of SAEs by the recipe of imported ones, behind what collects its rows, where it can be."""
    recipe = check_retraining.recipe_of(spec.recipe, done.get("core"))
    if recipe is None or (ROWS in done and done[ROWS].state != "succeeded"):
        return []
    if not inputs.get("activations") and spec.hook_name is None:
        return []
    children, rows = _rows(spec, inputs, done)
    return [*children, check_retraining.child(recipe, len(inputs["saes"]), spec.retrained_seeds, rows)]


def _stress(spec: Spec, inputs: Mapping[str, list[str]], name: str, done: Mapping[str, Done]) -> list[Child]:
    """A stress of the SAEs, behind the jobs that collect more rows for it."""
    sources = {**inputs, "activations": _rows(spec, inputs, done)[1], **check_retraining.inputs(done)}
    return jobs(name, _subject(spec, sources))


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


SIBLINGS = "siblings: the same training with other seeds, checked together; three in all give an interval"
OR_RECIPE = ". Or the recipe that made it (`husai check --recipe FILE`), by which siblings are trained here"


def _why_not(spec: Spec, bound: Mapping[str, Sequence[Any]], name: str, done: Mapping[str, Done]) -> NotMeasured | None:
    """Why a measurement is not even tried, with what it would take."""
    kind = CHECKED[name]
    siblings = len(bound.get("saes", ())) > 1 or (name in STRESSES and check_retraining.inputs(done))
    if name not in BENCHMARKS and not siblings:
        reason, would_take = "SAEs of several seeds are compared, and this is one SAE without its siblings", SIBLINGS
        if name in STRESSES and RETRAINED in done:
            reason, would_take = f"its siblings could not be trained: {end(done[RETRAINED])}", RETRY
        elif name in STRESSES and "core" in done and (done["core"].result or {}).get("imported"):
            would_take += OR_RECIPE
    elif spec.source == "language" and MORE_ROWS.get(name) and spec.hook_name is None:
        reason = "nothing says at which hook the SAEs read, where its rows have to be collected"
        would_take = "hook_name: `husai check --hook-name HOOK`"
    elif spec.source == "language" and name == "transcoder" and LAYER.match(str(spec.hook_name)) is None:
        reason = f"the hook {spec.hook_name} lies in no layer, so it has no MLP to compare with"
        would_take = "SAEs on a layer of the network"
    elif name in STRESSES and ROWS in done and done[ROWS].state != "succeeded":
        reason = f"no rows could be collected: {end(done[ROWS])}"
        would_take = RETRY
    else:
        return None
    return NotMeasured(kind=kind, reason=reason, would_take=would_take)


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The verdict with its rules, what was measured, and what was not.

    Raises:
        UserError: nothing could be measured, or the gate made no decision.
    """
    if GATE not in done:
        ends = "; ".join(f"{name}: {end(ended)}" for name, ended in done.items() if ended.state != "succeeded")
        raise UserError(f"nothing could be measured, so no policy was asked: {ends}")
    gate = done[GATE]
    if gate.state != "succeeded" or gate.result is None:
        raise UserError(f"the gate made no decision: {end(gate)}")
    decision = Decision.model_validate(gate.result)
    results = {name: done[name].result or {} for name in CHECKED if name in done and done[name].state == "succeeded"}
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
        not_measured=[*left_out, *_not_retrained(done), *not_measured.beyond(decision.rules, CHECKED.values())],
        recipe_check=next((result["recipe_check"] for result in results.values() if result.get("recipe_check")), None),
        may_be_wrong=diagnosis.of_core(results.get("core")),
    )


def _left_out(spec: Spec, bound: Mapping[str, Sequence[Any]], name: str, done: Mapping[str, Done]) -> NotMeasured:
    """Why there is no result of a measurement."""
    never_tried = _why_not(spec, bound, name, done)
    if never_tried:
        return never_tried
    ends = {child: ended for child, ended in done.items() if child.startswith(f"{ROWS}-{name}")} | {name: done[name]}
    reason = next(end(ended) for ended in ends.values() if ended.state != "succeeded")
    return NotMeasured(kind=CHECKED[name], reason=reason, would_take=RETRY)


def _not_retrained(done: Mapping[str, Done]) -> list[NotMeasured]:
    """That no SAEs could be trained by the claimed recipe, where this was tried."""
    ended = done.get(RETRAINED)
    if ended is None or ended.state == "succeeded":
        return []
    reason = f"no SAEs could be trained by the claimed recipe: {end(ended)}"
    return [NotMeasured(kind="train.sae", reason=reason, would_take=RETRY)]


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
    if result.recipe_check:
        text += f" {len(result.recipe_check.retrained)} SAEs were retrained here by the claimed recipe."
    return [
        panels.Headline(text=text, tone=rule_panels.TONES[result.verdict], figures=figures),
        *diagnosis.panel(result.may_be_wrong),
        rule_panels.table(result.rules),
        *rule_panels.bars(result.rules),
        *_not_met(result.rules),
        *stress_panels.recipe_check(result.recipe_check),
        *not_measured.panel(result.not_measured),
    ]


def _not_met(rules: Sequence[RuleOutcome]) -> list[panels.AnyPanel]:
    """Why the rules that have a figure are not met or undecided."""
    pairs = [(rule.name, rule.reason) for rule in rules if rule.verdict != "pass" and rule.value is not None]
    title = "Why measured rules are not met or undecided"
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
    children=("train.activations", "train.sae", *CHECKED.values(), "release.gate"),
)
