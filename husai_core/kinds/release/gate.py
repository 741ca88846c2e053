"""May this SAE be released? Judges the evidence about one checkpoint by a policy: pass, fail or inconclusive.

Evidence counts only if it is about this very checkpoint and fresh at `as_of`. Figures that the policy wants settled
must not have moved with the last doubling of training, and who trained the SAEs is a rule of its own. Every run also
measures two controls, SAEs on a synthetic world with true features and on noise without any; a gate that cannot tell
them apart is inconclusive. The decision artifact holds all that is needed to derive it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, field_validator, model_validator

from husai_core import panels
from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs, Job
from husai_core.kinds.common import rule_panels
from husai_core.kinds.kind import BaseSpec, Child, Done, Facts, From, Kind, Port, Work
from husai_core.release import bundle
from husai_core.release.advice import advice
from husai_core.release.decide import CONTROL_KIND, Decision, decide, instant
from husai_core.release.evidence import Control, Controls, EvidenceItem, read, result_digest
from husai_core.release.judge import AHEAD_DAYS, DAY, RuleOutcome
from husai_core.release.policy import Policy, names, resolve

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

    policy: str = Field("strict", description="name of a policy that comes with HUSAI, or of the lab's own")
    policy_document: dict[str, Any] | None = Field(
        None,
        description="a policy of the lab's own in full; the service fills it in",
        json_schema_extra={"stamp": "policy"},
    )
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
        name, document = data.get("policy", "strict"), data.get("policy_document")
        if document is None and name not in names():
            return data  # the lab's own, which only the service knows
        digest, expected = resolve(name, document).digest, data.get("policy_digest")
        if expected and expected != digest:
            raise ValueError(f"policy '{name}' has digest {digest}, not {expected}")
        return {**data, "policy_digest": digest}

    def resolved(self) -> Policy:
        """The policy that decides.

        Raises:
            UserError: nothing packaged has this name, and it is not there in full.
        """
        try:
            return resolve(self.policy, self.policy_document)
        except ValueError as error:
            raise UserError(str(error)) from None


INPUTS = {
    "candidate": Port("sae", "the checkpoint to be released"),
    "evidence": Port("result", "results of stress and benchmark jobs about it", many=True, required=False),
}
OUTPUTS = {"decision": Port("decision", "the decision, its policy, evidence and controls")}


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """The measurements of both controls; equal for every gate run, so computed once."""
    spec.resolved()  # a policy that is not there is refused before anything is measured
    return [] if done else [child for name in WORLDS for child in _measurement(name)]


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Decision:
    """Decide, and write the decision with all that it was made from."""
    if spec.as_of is None:
        raise UserError("as_of is not set")
    policy, candidate = spec.resolved(), inputs.one("candidate").digest
    at = instant(spec.as_of)
    distinct = {artifact.digest: artifact for artifact in inputs.many("evidence")}
    evidence = [_item(artifact, at) for artifact in distinct.values()]
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
    stages = {child: ended for child, ended in done.items() if child.startswith(name) and ended.state != "succeeded"}
    reasons = [f"{child}: {ended.reason or ended.state}" for child, ended in stages.items()]
    return Control(reason="; ".join(reasons) or "it was not measured")


ANSWERS = {"pass": "Release", "fail": "Do not release", "inconclusive": "Inconclusive"}


EXPECTED = {True: "as expected", False: "not as expected"}


def present(result: Decision) -> list[panels.AnyPanel]:
    """The verdict, every rule against its bar, each reason once, and what would decide it."""
    return [
        _headline(result),
        rule_panels.table(result.rules),
        *_trainings(result.rules),
        *rule_panels.bars(result.rules),
        _reasons(result),
        *_advice(result),
        _controls(result),
        _questions(result.rules),
        *_evidence(result),
    ]


def _headline(result: Decision) -> panels.Headline:
    if not result.self_test.passed:
        why = "the gate could not tell its own controls apart, so it says nothing about this SAE"
    elif result.verdict == "pass":
        why = f"all {len(result.rules)} rules are met, each by the unfavourable end of its interval"
    else:
        why = rule_panels.tally(result.rules)
    figures = [
        panels.Figure(label="policy", value=result.policy),
        panels.Figure(label="policy digest", value=result.policy_digest, format="digest"),
        panels.Figure(label="candidate", value=result.candidate, format="digest"),
        panels.Figure(label="judged as of", value=result.as_of),
        *(panels.Figure(label="provenance", value=rule.provenance) for rule in result.rules if rule.accepts),
    ]
    return panels.Headline(
        text=f"{ANSWERS[result.verdict]}: {why}.", tone=rule_panels.TONES[result.verdict], figures=figures
    )


def _trainings(rules: Sequence[RuleOutcome]) -> list[panels.AnyPanel]:
    """Whose trainings stand behind each figure, and whether it was settled; nothing of decisions of before."""
    known = [rule for rule in rules if rule.provenance is not None and rule.accepts is None]
    rows: list[list[panels.Cell]] = [
        [
            rule.name,
            f"{rule.provenance}, retrained here" if rule.retrained else rule.provenance,
            rule.change,
            "" if rule.margin is None else f"within \N{PLUS-MINUS SIGN}{rule.margin:g}",
            "not asked" if rule.settled is None else "yes" if rule.settled else "no",
        ]
        for rule in known
    ]
    labels = ["rule", "SAEs", "last doubling", "needed", "settled"]
    note = (
        "Last doubling: how the figure changed from half the tokens of training to all of them. Retrained here: the "
        "SAEs behind it were trained by HUSAI, with the recipe that their user claims."
    )
    if any(rule.comparable for rule in known):
        labels.append("recipe agrees")
        rows = [[*row, rule.comparable or "not asked"] for row, rule in zip(rows, known, strict=True)]
        note += " Recipe agrees: SAEs that were trained here by that recipe are like the imported ones."
    columns = [panels.Column(label=label, format="number" if label == "last doubling" else "text") for label in labels]
    return [panels.Table(title="Trainings behind the figures", note=note, columns=columns, rows=rows)] if rows else []


def _reasons(result: Decision) -> panels.Text:
    pairs = [(rule.name, rule.reason) for rule in result.rules if rule.verdict != "pass"]
    met = [(rule.name, rule.reason) for rule in result.rules if rule.verdict == "pass"]
    test = [] if result.self_test.passed else [("self-test", result.self_test.reason)]
    return panels.Text(title="Reasons", paragraphs=rule_panels.grouped([*test, *pairs, *met]))


def _advice(result: Decision) -> list[panels.AnyPanel]:
    """What would decide the rules that are undecided, by what the installed kinds can do."""
    from husai_core import kinds

    rules = [rule.model_dump() for rule in result.rules if rule.verdict == "inconclusive"]
    paragraphs = advice(result.verdict, rules, kinds.names())
    if any(rule["evidence_digest"] is None and rule["evidence"] in kinds.names() for rule in rules) and paragraphs:
        paragraphs.append("What cannot be run on these SAEs, and what that would take, is said by `husai check`.")
    return [panels.Text(title="What would decide it", paragraphs=paragraphs)] if paragraphs else []


def _controls(result: Decision) -> panels.Table:
    """What the gate made of the two worlds whose answer is known."""
    test = result.self_test
    outcomes = [
        ("known good", "must pass", test.good, test.good.verdict == "pass"),
        ("known bad", "must not pass", test.bad, test.bad.verdict != "pass" and test.bad.measured),
    ]
    rows: list[list[panels.Cell]] = [
        [name, wanted, None if outcome.value is None else rule_panels.figure(outcome), EXPECTED[expected]]
        for name, wanted, outcome, expected in outcomes
    ]
    labels = ("control", "wanted", "figure", "outcome")
    columns = [panels.Column(label=label, format="number" if label == "figure" else "text") for label in labels]
    note = (
        "SAEs on a synthetic world with true features and on noise without any, by the rules on stability. "
        f"Known good: {test.good.reason}. Known bad: {test.bad.reason}. "
        f"Self-test {'passed' if test.passed else 'FAILED'}: {test.reason}."
    )
    return panels.Table(title="Controls of the gate", note=note, columns=columns, rows=rows)


def _questions(rules: Sequence[RuleOutcome]) -> panels.Text:
    """What each rule asks of which evidence."""
    paragraphs = [
        f"{rule.name}: {rule.title} Reads {rule.statistic or 'the provenance'} of {rule.evidence}." for rule in rules
    ]
    return panels.Text(title="What each rule asks", folded=True, paragraphs=paragraphs)


def _evidence(result: Decision) -> list[panels.AnyPanel]:
    """The results that were put before the gate, those of its controls included, with the rules that read each."""
    rows: list[list[panels.Cell]] = []
    for item in result.evidence:
        readers = ", ".join(rule.name for rule in result.rules if rule.evidence_digest == item.digest)
        produced = datetime.fromtimestamp(item.produced_at, UTC).strftime("%Y-%m-%d %H:%M")
        rows.append([item.kind, readers or "no rule", produced, item.digest])
    for name in ("good", "bad"):
        artifact = getattr(result.self_test, name).artifact
        rows += [[f"known-{name} control", "self-test", "", artifact]] if artifact else []
    columns = [
        panels.Column(label="evidence"),
        panels.Column(label="read by"),
        panels.Column(label="produced (UTC)"),
        panels.Column(label="sha256", format="digest"),
    ]
    return [panels.Table(title="Evidence", folded=True, columns=columns, rows=rows)] if rows else []


def estimate(spec: Spec, facts: Facts) -> Work:
    """The measurements of both controls, which are computed once for all gates, and the decision."""
    from husai_core.kinds import plan_estimate

    controls = plan_estimate.study(plan, spec, facts)
    return controls.model_copy(update={"written_bytes": controls.written_bytes + DECISION_BYTES})


DECISION_BYTES = 130_000


KIND = Kind(
    spec=Spec,
    result=Decision,
    inputs=INPUTS,
    outputs=OUTPUTS,
    plan=plan,
    summarise=summarise,
    estimate=estimate,
    present=present,
    children=("train.activations", "train.sae", CONTROL_KIND),
)
