"""May this SAE be released? Judges the evidence about one checkpoint by a policy: pass, fail or inconclusive.

Evidence counts only if it is about this very checkpoint, fresh at `as_of`, and from converged training. Every run
also measures two controls, SAEs on a synthetic world with true features and on noise without any; a gate that
cannot tell them apart is inconclusive. The decision artifact holds all that is needed to derive it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs, Job
from husai_core.kinds.kind import BaseSpec, Child, Done, From, Kind, Port
from husai_core.release import bundle
from husai_core.release.decide import CONTROL_KIND, Decision, decide, instant
from husai_core.release.evidence import Control, Controls, EvidenceItem, read, result_digest
from husai_core.release.judge import AHEAD_DAYS, DAY
from husai_core.release.policy import load

RECIPE = {"d_sae": 32, "k": 3, "tokens": 500_000, "batch_size": 512, "lr": 3e-3, "decay_fraction": 0.8}
SEEDS = [0, 1, 2, 3, 4]
GOOD = {"rows": 16_384, "n_features": 32, "d_model": 32, "active": 3}
WORLDS: dict[str, dict[str, Any]] = {
    "good": {"source": "synthetic", "world": GOOD},
    "bad": {"source": "synthetic", "world": GOOD, "structureless": True},
}
"""The good world has as many features as the SAEs have latents. The bad one is Gaussian noise with its mean and
covariance, so that nothing but the features tells them apart."""


class Spec(BaseSpec):
    """Which policy decides, and when."""

    policy: str = Field("strict", description="name of a packaged policy")
    policy_digest: str = Field("", description="digest that the policy must have; filled in where empty")
    as_of: str | None = Field(
        None, description="instant at which freshness is judged (RFC 3339)", json_schema_extra={"stamp": "now"}
    )

    @field_validator("as_of")
    @classmethod
    def _instant(cls, as_of: str | None) -> str | None:
        if as_of is not None:
            instant(as_of)
        return as_of

    @model_validator(mode="before")
    @classmethod
    def _pin(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name = data.get("policy", "strict")
        digest, asked = load(name).digest, data.get("policy_digest")
        if asked and asked != digest:
            raise ValueError(f"policy '{name}' has digest {digest}, not {asked}")
        return {**data, "policy_digest": digest}


INPUTS = {
    "candidate": Port("sae", "the checkpoint to be released"),
    "evidence": Port("result", "results of stress and benchmark jobs about it", many=True, required=False),
}
OUTPUTS = {"decision": Port("decision", "the decision, its policy, evidence and controls")}


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """The measurements of both controls; equal for every gate run, so computed once."""
    return [] if done else [child for name in WORLDS for child in _measurement(name)]


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Decision:
    """Decide, and write the decision with all that it was made from."""
    if spec.as_of is None:
        raise UserError("as_of is not set")
    policy, candidate = load(spec.policy), inputs.one("candidate").digest
    at = instant(spec.as_of)
    evidence = [_item(artifact, at) for artifact in {one.digest: one for one in inputs.many("evidence")}.values()]
    controls = Controls(good=_control("good", done), bad=_control("bad", done))
    decision = decide(policy, candidate, evidence, controls, spec.as_of)
    directory = job.output("decision", "decision")
    bundle.write(directory, policy, evidence, controls, decision.model_dump(mode="json"))
    job.log(f"{decision.verdict}: {'; '.join(decision.reasons) or 'every rule passes'}")
    return decision


def _measurement(name: str) -> list[Child]:
    """Rows of one control world, SAEs on them, and their stability."""
    rows, saes = f"{name}-activations", f"{name}-saes"
    return [
        Child(rows, "train.activations", WORLDS[name]),
        Child(saes, "train.sae", {"recipe": RECIPE, "seeds": SEEDS}, {"activations": [From(rows, "activations")]}),
        Child(
            f"{name}-stability",
            CONTROL_KIND,
            {},
            {"saes": [From(saes, "saes")], "activations": [From(rows, "activations")]},
        ),
    ]


def _item(artifact: Artifact, at: float) -> EvidenceItem:
    """One piece of evidence, as made last before `at` or soon after, so that measuring again makes it fresh."""
    soon = [produced_at for produced_at in artifact.produced_at if produced_at <= at + AHEAD_DAYS * DAY]
    try:
        item = read(artifact.path, artifact.digest, (soon or artifact.produced_at[:1])[-1])
    except (OSError, ValueError) as error:
        raise UserError(f"evidence {artifact.digest[:12]} is not a result document") from error
    if result_digest(item.document) != artifact.digest:
        raise UserError(f"evidence {artifact.digest[:12]} no longer has its digest: the store is damaged")
    return item


def _control(name: str, done: Mapping[str, Done]) -> Control:
    """What was measured on one control world, or why nothing was."""
    ended = done.get(f"{name}-stability")
    if ended and ended.state == "succeeded" and ended.result is not None:
        return Control(artifact=next(iter(ended.outputs.get("result", [])), None), result=dict(ended.result))
    stages = {child: found for child, found in done.items() if child.startswith(name) and found.state != "succeeded"}
    told = [f"{child}: {found.reason or found.state}" for child, found in stages.items()]
    return Control(reason="; ".join(told) or "it was not measured")


KIND = Kind(
    spec=Spec,
    result=Decision,
    inputs=INPUTS,
    outputs=OUTPUTS,
    plan=plan,
    summarise=summarise,
    children=("train.activations", "train.sae", CONTROL_KIND),
)
