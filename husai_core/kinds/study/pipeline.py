"""From nothing to a decision: activations, SAEs, every benchmark and stress, and the release gate.

The preset `language` reads the built-in language model and trains five seeds. `modular` first trains a transformer on
addition modulo 113; `smoke` is the same at its smallest and takes seconds. The candidate is the first seed, chosen
before anything is measured. Floors of quality make the study fail where a stage ran but did not work; the gate's
verdict does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import check_rows, mlp_rows, rule_panels
from husai_core.kinds.common import panels as common
from husai_core.kinds.common.measurements import MEASURED, Sources, Subject, jobs
from husai_core.kinds.common.stages import ANSWERS, Stage, stage_of, stages_table
from husai_core.kinds.kind import BaseSpec, Child, Done, Facts, From, Kind, Work
from husai_core.release.decide import Decision
from husai_core.release.judge import RuleOutcome

MADE = {"transformer": "train.transformer", "activations": "train.activations", "sae": "train.sae"}
"""The stages that make what is measured."""
STAGES = {**MADE, **MEASURED, "gate": "release.gate"}
CANDIDATE = 0
HOOK = "blocks.1.hook_resid_post"
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "language": {
        "activations": {
            "source": "language",
            "model": "classics-2m",
            "hook_name": HOOK,
            "domain": assets.CLASSICS,
            "validation_fraction": 0.02,
        },
        "held_out": {"max_sequences": 192},
        "sae": {
            "recipe": {"d_sae": 256, "k": 8, "k_start": 2, "resample_tokens": 40_000, "lr": 1e-2, "tokens": 1_000_000},
            "seeds": [0, 1, 2, 3, 4],
        },
        "floors": {"explained_variance": 0.8},
    },
    "modular": {
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

    preset: Literal["language", "modular", "smoke"] = Field("language", description="the settings to start from")
    transformer: dict[str, Any] = Field(
        default_factory=dict, description="all but language: fields of train.transformer to change"
    )
    activations: dict[str, Any] = Field(default_factory=dict, description="fields of train.activations to change")
    sae: dict[str, Any] = Field(default_factory=dict, description="fields of train.sae to change")
    policy: str = Field("internal", description="the release policy that decides")
    policy_document: dict[str, Any] | None = Field(
        None,
        description="a policy of the lab's own in full; the service fills it in",
        json_schema_extra={"stamp": "policy"},
    )
    min_test_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="all but language: least accuracy of the transformer on test pairs; the preset's if unset",
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
        preset = PRESETS.get(info.data.get("preset", ""), {})
        if name in preset:
            kinds.get(STAGES[name]).spec.model_validate(_merged(preset[name], change))
        return change

    @model_validator(mode="after")
    def _composes(self) -> Self:
        kinds.get(STAGES["gate"]).spec.model_validate(self.stage("gate"))
        if self.is_language:
            self._check_language()
        elif self.stage("transformer").get("dataset") == "text" or self._read["source"] == "language":
            raise ValueError(f"the preset {self.preset} is about modular addition, so its transformer cannot read text")
        return self

    def _check_language(self) -> None:
        if self.transformer or self.min_test_accuracy is not None:
            name = "transformer" if self.transformer else "min_test_accuracy"
            raise ValueError(f"{name} is for presets that train a transformer, not {self.preset}")
        if self._read["source"] != "language" or "hook_names" in self.activations:
            raise ValueError("the preset language reads a language model at one hook: set hook_name and model alone")
        try:
            check_rows.mlp_hooks(self._read["hook_name"])
        except UserError as error:
            raise ValueError(str(error)) from None

    @property
    def is_language(self) -> bool:
        """True where a language model is read, False where a transformer is trained on addition."""
        return "transformer" not in PRESETS[self.preset]

    @property
    def stages(self) -> dict[str, str]:
        """The stages by name, with their kinds."""
        return {name: kind for name, kind in STAGES.items() if name != "transformer" or not self.is_language}

    @property
    def _read(self) -> dict[str, Any]:
        return {"source": "model", **_merged(PRESETS[self.preset]["activations"], self.activations)}

    def stage(self, name: str) -> dict[str, Any]:
        """The spec of one stage; a nested field is changed, not replaced."""
        if name == "gate":
            return {"policy": self.policy, "policy_document": self.policy_document, "as_of": self.as_of}
        if name == "activations" and self.is_language:
            hook_name = self._read["hook_name"]
            return self.read | {"hook_names": [hook_name, *check_rows.mlp_hooks(hook_name)]}
        return _merged(PRESETS[self.preset].get(name, {}), getattr(self, name, {}))

    @property
    def read(self) -> dict[str, Any]:
        """The fields of train.activations that are the same at every hook."""
        return {name: value for name, value in self._read.items() if name != "hook_name"}

    @property
    def subject(self) -> Subject:
        """The SAEs and what they are measured with."""
        sources: dict[str, Sources] = {
            "saes": [From("sae", "saes")],
            "activations": [From("activations", "activations", 0)],
        }
        if not self.is_language:
            return Subject("model", sources | {"transformer": [From("transformer", "transformer")]})
        ends = {end: [From("activations", "activations", i)] for i, end in enumerate(mlp_rows.PORTS, 1)}
        held_out = {"model": self.read["model"], **PRESETS[self.preset]["held_out"]}
        return Subject("language", sources | ends, held_out, read=self.read, hook_name=self._read["hook_name"])

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
    rules: list[RuleOutcome] = Field([], description="of the policy; absent from earlier results")
    stages: list[Stage]
    floors: list[Floor]


INPUTS_OF = {"activations": ("transformer",), "sae": ("activations",)}
"""The ports of the stages that make what is measured."""


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """All stages at once; each is wired to the outputs that it takes."""
    if done:
        return []
    subject = spec.subject
    making = [
        Child(
            name,
            kind,
            spec.stage(name),
            {port: subject.sources[port] for port in INPUTS_OF.get(name, ()) if port in subject.sources},
        )
        for name, kind in MADE.items()
        if name in spec.stages
    ]
    measured = [child for name in MEASURED for child in jobs(name, subject)]
    judged = {"candidate": [From("sae", "saes", CANDIDATE)], "evidence": [From(name, "result") for name in MEASURED]}
    return [*making, *measured, Child("gate", STAGES["gate"], spec.stage("gate"), judged)]


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The table of stages.

    Raises:
        UserError: a stage did not succeed, or a quality is below its floor.
    """
    results = _results(spec, done)
    floors = _floors(spec, {name: result.key_figures for name, result in results.items()})
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
        rules=decision.rules,
        stages=[stage_of(name, kind, done[name].state, results[name]) for name, kind in spec.stages.items()],
        floors=floors,
    )


def _results(spec: Spec, done: Mapping[str, Done]) -> dict[str, BaseResult]:
    """Every stage's result, or one error that names the jobs at fault."""
    ended = {name: stage.result for name, stage in done.items() if stage.state == "succeeded" and stage.result}
    if missing := [name for name in spec.stages if name not in ended]:
        reasons = [f"{name}: {end.reason or end.state}" for name, end in done.items() if end.state != "succeeded"]
        raise UserError(f"these stages did not succeed: {'; '.join(reasons) or ', '.join(missing)}")
    return {name: kinds.get(kind).result.model_validate(ended[name]) for name, kind in spec.stages.items()}


def _floors(spec: Spec, figures: Mapping[str, Mapping[str, Any]]) -> list[Floor]:
    explained = Floor(
        name="lowest explained variance",
        value=figures["sae"]["lowest_explained_variance"],
        floor=spec.floor("explained_variance"),
    )
    if spec.is_language:
        return [explained]
    transformer = figures["transformer"]
    return [
        Floor(name="test accuracy", value=transformer["test_accuracy"], floor=spec.floor("test_accuracy")),
        Floor(name="leak test passed", value=float(bool(transformer["leak_test_passed"])), floor=1),
        explained,
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
    return [
        panels.Headline(text=text, tone=rule_panels.TONES[result.verdict], figures=figures),
        *([rule_panels.table(result.rules)] if result.rules else []),
        *rule_panels.bars(result.rules),
        stages_table(result.stages, result.rules),
        _floor_table(result),
        *_reasons(result),
    ]


def _reasons(result: Result) -> list[panels.AnyPanel]:
    """Why rules are not met or undecided, and what would decide them; of earlier results, the gate's reasons."""
    pairs = [
        (rule.name, f"{rule.reason}. To decide it: {rule.settle}." if rule.settle else f"{rule.reason}.")
        for rule in result.rules
        if rule.verdict != "pass"
    ]
    lines = rule_panels.grouped(pairs) or result.reasons
    return [panels.Text(title="Why the gate says so", paragraphs=lines)] if lines else []


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
