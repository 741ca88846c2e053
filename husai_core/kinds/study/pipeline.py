"""From nothing to a decision: transformer, activations, SAEs, a benchmark, every stress, and the release gate.

The preset `demo` learns addition modulo 113 and trains five seeds; `smoke` is the same at its smallest and takes
seconds. The candidate is the first seed, chosen before anything is measured. Floors of quality make the study fail
where a stage ran but did not work; the gate's verdict does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from husai_core import kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import rule_panels
from husai_core.kinds.common.stages import ADDITION_PORTS, ANSWERS, Stage, stage_of, stages_table
from husai_core.kinds.kind import BaseSpec, Child, Done, Facts, From, Kind, Work
from husai_core.release.decide import Decision

STAGES = {
    "transformer": "train.transformer",
    "activations": "train.activations",
    "sae": "train.sae",
    "core": "benchmark.core",
    "stability": "stress.trained_vs_random",
    "transcoder": "stress.transcoder",
    "ood": "stress.ood",
    "untrained": "stress.untrained_model",
    "gate": "release.gate",
}
MEASURED = ("core", "stability", "transcoder", "ood", "untrained")
"""The stages whose results are evidence."""
CANDIDATE = 0
SOURCES: dict[str, Sequence[str | From]] = {
    "transformer": [From("transformer", "transformer")],
    "activations": [From("activations", "activations")],
    "saes": [From("sae", "saes")],
    "candidate": [From("sae", "saes", CANDIDATE)],
    "evidence": [From(stage, "result") for stage in MEASURED],
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "transformer": {},
        "activations": {},
        "sae": {
            "recipe": {"d_sae": 128, "k": 8, "tokens": 600_000, "batch_size": 1024, "lr": 4e-3},
            "seeds": [0, 1, 2, 3, 4],
        },
        "floors": {"test_accuracy": 0.99, "explained_variance": 0.9},
    },
    "smoke": {
        "transformer": {"p": 13, "d_model": 32, "n_heads": 2, "d_mlp": 64, "steps": 600},
        "activations": {},
        "sae": {"recipe": {"d_sae": 64, "k": 8, "tokens": 60_000, "batch_size": 128}, "seeds": [0, 1, 2]},
        "floors": {"test_accuracy": 0.3, "explained_variance": 0.8},
    },
}


class Spec(BaseSpec):
    """A preset and what to change in it."""

    preset: Literal["demo", "smoke"] = Field("demo", description="the settings to start from")
    transformer: dict[str, Any] = Field(default_factory=dict, description="fields of train.transformer to change")
    activations: dict[str, Any] = Field(default_factory=dict, description="fields of train.activations to change")
    sae: dict[str, Any] = Field(default_factory=dict, description="fields of train.sae to change")
    policy: str = Field("strict", description="the release policy that decides")
    policy_document: dict[str, Any] | None = Field(
        None,
        description="a policy of the lab's own in full; the service fills it in",
        json_schema_extra={"stamp": "policy"},
    )
    min_test_accuracy: float | None = Field(
        None, ge=0, le=1, description="least accuracy of the transformer on test pairs; the preset's if unset"
    )
    min_explained_variance: float | None = Field(
        None, le=1, description="least held-out explained variance of any SAE; the preset's if unset"
    )
    as_of: str | None = Field(
        None, description="instant at which evidence must be fresh (RFC 3339)", json_schema_extra={"stamp": "now"}
    )

    @field_validator("transformer", "activations", "sae")
    @classmethod
    def _stage_runs(cls, change: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = str(info.field_name)
        if "preset" in info.data:
            kinds.get(STAGES[name]).spec.model_validate(_merged(PRESETS[info.data["preset"]][name], change))
        return change

    @model_validator(mode="after")
    def _composes(self) -> Self:
        kinds.get(STAGES["gate"]).spec.model_validate(self.stage("gate"))
        if self.stage("transformer").get("dataset") == "text" or self.stage("activations").get("source") == "language":
            raise ValueError(
                "the stresses of this study are about modular addition, so its transformer cannot read text"
            )
        return self

    def stage(self, name: str) -> dict[str, Any]:
        """The spec of one stage; a nested field is changed, not replaced."""
        if name == "gate":
            return {"policy": self.policy, "policy_document": self.policy_document, "as_of": self.as_of}
        return _merged(PRESETS[self.preset].get(name, {}), getattr(self, name, {}))

    def floor(self, name: str) -> float:
        """The least acceptable figure of this name."""
        wanted: float | None = getattr(self, f"min_{name}")
        return PRESETS[self.preset]["floors"][name] if wanted is None else wanted


class Floor(BaseModel):
    """A quality that the stages must reach."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    value: float
    floor: float


class Result(BaseResult):
    """The stages, the floors they cleared, and the verdict on the candidate."""

    verdict: Literal["pass", "fail", "inconclusive"]
    candidate: str = Field(description="digest of the SAE checkpoint that was judged")
    decision: str = Field(description="digest of the decision artifact")
    reasons: list[str]
    stages: list[Stage]
    floors: list[Floor]


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """All stages at once; each is wired to the outputs that its ports are named after."""
    if done:
        return []
    return [
        Child(
            name=name,
            kind=kind,
            spec=spec.stage(name),
            inputs={
                port: SOURCES[port] for port in ADDITION_PORTS.get(kind, kinds.get(kind).inputs) if port in SOURCES
            },
        )
        for name, kind in STAGES.items()
    ]


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The table of stages.

    Raises:
        UserError: a stage did not succeed, or a quality is below its floor.
    """
    results = _results(done)
    figures = {name: result.key_figures for name, result in results.items()}
    floors = _floors(spec, figures)
    if failed := [
        f"{floor.name} is {floor.value:.4g}, the floor is {floor.floor:g}" for floor in floors if _low(floor)
    ]:
        raise UserError("; ".join(failed))
    decision = Decision.model_validate(results["gate"].model_dump())
    return Result(
        verdict=decision.verdict,
        candidate=decision.candidate,
        decision=done["gate"].outputs["decision"][0],
        reasons=decision.reasons,
        stages=[stage_of(name, kind, done[name].state, results[name]) for name, kind in STAGES.items()],
        floors=floors,
    )


def _results(done: Mapping[str, Done]) -> dict[str, BaseResult]:
    """Every stage's result, or one error that names the stages at fault."""
    ended = {name: stage.result for name, stage in done.items() if stage.state == "succeeded" and stage.result}
    missing = [name for name in STAGES if name not in ended]
    if missing:
        reasons = [f"{name}: {done[name].reason or done[name].state}" for name in missing if name in done]
        raise UserError(f"these stages did not succeed: {'; '.join(reasons) or ', '.join(missing)}")
    return {name: kinds.get(STAGES[name]).result.model_validate(ended[name]) for name in STAGES}


def _floors(spec: Spec, figures: Mapping[str, Mapping[str, Any]]) -> list[Floor]:
    transformer, sae = figures["transformer"], figures["sae"]
    explained, floor = sae["lowest_explained_variance"], spec.floor("explained_variance")
    return [
        Floor(name="test accuracy", value=transformer["test_accuracy"], floor=spec.floor("test_accuracy")),
        Floor(name="leak test passed", value=float(bool(transformer["leak_test_passed"])), floor=1),
        Floor(name="lowest explained variance", value=explained, floor=floor),
    ]


def _low(floor: Floor) -> bool:
    """True below the floor; a figure that is not a number is below every floor."""
    return not floor.value >= floor.floor


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        name: _merged(base[name], value)
        for name, value in change.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **change, **nested}


def present(result: Result) -> list[panels.AnyPanel]:
    """The verdict, the floors, and the stages with their key figures; what each stage shows comes after it."""
    figures = [
        panels.Figure(label="candidate", value=result.candidate, format="digest"),
        panels.Figure(label="decision artifact", value=result.decision, format="digest"),
    ]
    text = f"{ANSWERS[result.verdict]}. All {len(result.stages)} stages ran and reached their floors of quality."
    reasons = [panels.Text(title="Why the gate says so", folded=True, paragraphs=result.reasons)]
    return [
        panels.Headline(text=text, tone=rule_panels.TONES[result.verdict], figures=figures),
        stages_table(result.stages),
        _floor_table(result),
        *(reasons if result.reasons else []),
    ]


def _floor_table(result: Result) -> panels.Table:
    columns = [
        panels.Column(label="quality"),
        panels.Column(label="value", format="number"),
        panels.Column(label="at least", format="number"),
    ]
    rows: list[list[panels.Cell]] = [
        [floor.name, common.finite(floor.value), common.finite(floor.floor)] for floor in result.floors
    ]
    note = "Below one of them the study would have failed."
    return panels.Table(title="Floors of quality", note=note, columns=columns, rows=rows)


def estimate(spec: Spec, facts: Facts) -> Work:
    """All stages."""
    from husai_core.kinds import plan_estimate

    return plan_estimate.study(plan, spec, facts)


KIND = Kind(
    spec=Spec,
    result=Result,
    plan=plan,
    summarise=summarise,
    estimate=estimate,
    present=present,
    children=tuple(STAGES.values()),
    presets=PRESETS,
)
