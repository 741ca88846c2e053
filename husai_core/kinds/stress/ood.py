"""Do reconstruction and probes survive a true shift of the domain?

The given SAEs are measured on the pairs of the upper half. The rest judges their recipe: SAEs trained anew (same recipe
and seeds) and probes are fitted on pairs whose first operand is in the lower half, a < ceil(p/2), and
tested on held-out pairs of that half and on all pairs of the upper half. The probes are ridge regressions to the
answer, from the SAE's latents and from the raw activations; what counts is how much more the former lose. Addition
commutes, so a pair of the upper half may mirror one that was fitted; `unmirrored` is where neither operand was seen as
a first one. The network's own accuracy stands beside.

Of a language model, the given SAEs themselves are measured on `activations` of the text that they were trained on, and
on `shifted` ones of other texts at the same hook: explained variance, L0 and dead latents on the held-out rows of each,
beside random SAEs that are as sparse. With the model, probes to what kind of token comes next are fitted on the first
text and tested on all; with the other texts, too, the SAEs are put in place of the activations (KL recovered). The text
on which a figure is worst counts.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field

from husai_core import panels
from husai_core.errors import UserError
from husai_core.job import Inputs, Job
from husai_core.kinds.common import shifted_network, shifted_operands, shifted_texts, stress_panels, work
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common.model_name import ModelName
from husai_core.kinds.common.stress import RETRAINED, SAES, Stress
from husai_core.kinds.kind import Facts, Kind, Port, Work

ROWS, TEXTS = {"activations", "shifted"}, {"text", "shifted_text"}
INPUTS = {
    "saes": SAES,
    "transformer": Port("transformer", "the network that they read; a language model may be named", required=False),
    "activations": Port(
        "activations",
        "of a language model, or with `retrained`: the rows that they were trained on",
        required=False,
    ),
    "shifted": Port("activations", "of a language model: the same hook on other texts", many=True, required=False),
    "text": Port(
        "upload", "of a language model: the files that `activations` were read from", many=True, required=False
    ),
    "shifted_text": Port(
        "upload",
        "of a language model: the file of each of `shifted` that is of no built-in text, for KL recovered",
        many=True,
        required=False,
    ),
    "retrained": RETRAINED,
}


class Spec(shifted_operands.OperandsSpec):
    """How pairs of addition are split, or how much of a language model is read."""

    model: ModelName | None = Field(
        None, max_length=200, description="a built-in language model or Hugging Face id, unless it is an input"
    )
    probe_rows: int = Field(4096, ge=64, le=100_000, description="language only: most rows to fit and to test probes")
    max_sequences: int = Field(
        32, ge=3, le=100_000, description="language only: most held-out sequences of each text for KL recovered"
    )

    @property
    def settings(self) -> shifted_network.Settings:
        """How much of a language model is read."""
        return shifted_network.Settings(self.probe_rows, self.max_sequences, self.seed)

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse anything but one kind of shift."""
        super().check_ports(bound)
        if "retrained" in bound and "shifted" not in bound:
            bound = {*bound} - {"activations"}
        language, network = ROWS & {*bound}, (self.model is not None) + ("transformer" in bound)
        if language != ROWS and (language or network != 1 or self.model):
            raise UserError(
                "bind either transformer (a network for addition), or activations and shifted (rows of a language "
                "model on its text and on others)"
            )
        if network > 1:
            raise UserError("give either model or a transformer input, not both")
        if TEXTS & {*bound} and (not language or not network):
            raise UserError("text and shifted_text are read by a language model: give model, or the input transformer")

    def check_facts(self, facts: Facts) -> None:
        """Refuse shifted rows of another model or hook, and texts of other rows."""
        super().check_facts(facts)
        shifted, texts = facts.get("shifted", ()), facts.get("shifted_text", ())
        shifted_texts.check(work.first(facts, "activations"), shifted)
        lacking = shifted_network.without_text(shifted, len(texts))
        if texts and all(shifted) and lacking:
            raise UserError(
                f"{lacking + len(texts)} of the shifted activations were read from files, but there are {len(texts)} "
                "shifted texts; bind the file of each, in their order"
            )


class Result(shifted_operands.Operands):
    """Drops under the shift."""

    texts: list[shifted_texts.Text] = Field([], description="of a language model: the text trained on, then the others")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Measure the given SAEs on other texts, or fit on the lower half and test on both."""
    spec.check_ports(inputs.bound)
    if not inputs.many("shifted"):
        stress = Stress(spec, inputs, job, trainings=1, seed=spec.seed)
        measured, fields = shifted_operands.measure(spec, inputs, job.device, stress)
        return Result(**stress.evidence(measured), seeds=list(stress.trainings.seeds), **fields)
    stress = Stress(spec, inputs, job, trainings=0, seed=spec.seed)
    of_groups = [shifted_texts.measure(group, inputs, spec.model, spec.settings, job) for group, _ in stress.groups]
    measured = stress.measured([figures for figures, _ in of_groups])
    return Result(**stress.evidence(measured), seeds=stress.group.seeds, texts=of_groups[0][1])


def present(result: Result) -> list[panels.AnyPanel]:
    """What the shift costs, and every figure in every domain."""
    shown = shifted_texts.present(result, result.texts) if result.texts else shifted_operands.present(result)
    return [*shown, *stress_panels.recipe_check(result.recipe_check)]


def estimate(spec: Spec, facts: Facts) -> Work:
    """SAEs on the lower half of the pairs and their figures, or the figures of the given ones on every text."""
    if not facts.get("shifted"):
        return shifted_operands.estimate(spec, facts)
    return shifted_texts.estimate(work.Siblings.of(spec.recipe, facts), spec.model, facts, spec.settings)


def needed_assets(spec: Spec) -> list[str]:
    """The language model that is read by its name."""
    return [spec.model] if spec.model else []


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    assets=needed_assets,
    statistics={
        "candidate_explained_variance_ood": ranges.EXPLAINED_VARIANCE,
        **{f"explained_variance_{domain}": ranges.EXPLAINED_VARIANCE for domain in ("id", "ood")},
        "explained_variance_drop": ranges.UNBOUNDED,
        **shifted_texts.STATISTICS,
    },
)
