"""What every benchmark inside a network does: it reads sibling SAEs, the network, and sequences that they never saw.

Light: no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import assets
from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs, Job
from husai_core.kinds.common import rows_work, work
from husai_core.kinds.common.model_name import ModelName
from husai_core.kinds.kind import BaseSpec, Facts, Port, Work
from husai_core.models import hooks
from husai_core.stability import origins

if TYPE_CHECKING:
    from husai_core.activations.store import Activations
    from husai_core.benchmarks.sample import Sample
    from husai_core.benchmarks.splice import Reading
    from husai_core.models.model import Model
    from husai_core.stability.seed_group import SAEGroup

INPUTS = {
    "saes": Port("sae", "one SAE, or siblings that differ in their seed alone", many=True),
    "transformer": Port("transformer", "the network that they read, unless `model` names it", required=False),
    "activations": Port(
        "activations",
        "the rows that they were trained on, to leave out the sequences behind these; only imported SAEs may lack it",
        required=False,
    ),
    "text": Port("upload", "language only: .txt and .md files to measure on", many=True, required=False),
}
CONTEXT = 128
ROWS_MISSING = "the SAEs were trained here: give the activations, too, so that held-out sequences are known"
MOST_LOGITS, EXAMPLES = 1 << 25, 2048
"""Logits, and rows for the random SAEs, that are held at once."""


class HeldOutSpec(BaseSpec):
    """Which network is read, and on which sequences."""

    model: ModelName | None = Field(
        None, max_length=200, description="a built-in language model or Hugging Face id; else the input's"
    )
    hook_name: str | None = Field(
        None, max_length=200, description="TransformerLens hook point; only where imported SAEs do not say theirs"
    )
    context: int | None = Field(
        None, ge=2, le=131_072, description=f"tokens per sequence; null: as in the activations, else {CONTEXT}"
    )
    prepend_bos: bool | None = Field(
        None,
        description="begin each sequence with the beginning-of-sequence token; null: as in the activations, else if "
        "there is one",
    )
    from_position: int = Field(0, ge=0, description="earlier tokens of each sequence do not go through the SAE")
    special_tokens: bool = Field(False, description="special tokens but padding go through the SAE, too")
    max_sequences: int = Field(
        512, ge=3, le=100_000, description="most held-out sequences, or pairs of addition; drawn at random"
    )
    seed: int = Field(0, ge=0, lt=2**53, description="seed of that draw and of the random SAEs")

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse no network, or two."""
        if (self.model is None) == ("transformer" not in bound):
            raise UserError("give either model or a transformer input, not both")

    def check_facts(self, facts: Facts) -> None:
        """Refuse SAEs that are no siblings, and such that were trained here without the rows that they saw."""
        saes = facts.get("saes", ())
        if not saes or not all(saes):
            return
        origins.check_alike(saes)
        if not saes[0].get("husai", {}).get("imported") and not facts.get("activations"):
            raise UserError(ROWS_MISSING)


def needed_assets(spec: HeldOutSpec) -> list[str]:
    """The language model that is read by its name."""
    return [spec.model] if spec.model else []


def read(spec: HeldOutSpec, inputs: Inputs, group: SAEGroup, job: Job) -> Reading:
    """The network with held-out sequences, at the hook of the SAEs.

    Raises:
        UserError: the SAEs do not read this network or hook, or no sequence is held out.
    """
    from husai_core.activations import store
    from husai_core.benchmarks.splice import Reading

    spec.check_ports(inputs.bound)
    origin = inputs.maybe("activations")
    if origin:
        group.check(origin)
    elif not group.imported:
        raise UserError(ROWS_MISSING)
    hook, trained_on = _hook(spec, group), store.load(origin.path) if origin else None
    artifact = inputs.maybe("transformer")
    if artifact and _is_modular(artifact):
        model, sample = _addition(spec, artifact, group, trained_on, job.device)
    else:
        model, sample = _language(spec, inputs, group, trained_on, job.device)
    job.log(f"{len(sample)} held-out sequences with {int(sample.rows.sum())} rows at {hook}")
    width = model.activations(model.inputs(sample.tokens[:1]), [hook])[hook].shape[2]
    group.check_width(width)
    return Reading(model, sample, hook, job.device)


def evidence(group: SAEGroup, inputs: Inputs) -> dict[str, Any]:
    """The fields that the results of all benchmarks have in common."""
    from husai_core.stability.retrain import unconverged

    origins = [artifact for port in ("activations", "transformer") for artifact in inputs.many(port)]
    return {
        "subject": group.digests,
        "converged": not group.imported and all(group.converged),
        "imported": group.imported,
        "unconverged": [] if group.imported else unconverged("SAEs", group.seeds, group.converged),
        "siblings_left_out": group.siblings_left_out,
        "leaks_label": any(group.leaks_label(artifact) for artifact in origins),
    }


def _hook(spec: HeldOutSpec, group: SAEGroup) -> str:
    from husai_core.stability.origins import UNKNOWN

    if any(sae.hook_head_index is not None for sae in group.saes):
        raise UserError("the SAEs read one attention head alone, and so cannot stand in for the activations at a hook")
    if group.hook_name == UNKNOWN and spec.hook_name is None:
        raise UserError("the SAEs do not say at which hook they read; set hook_name (husai check: --hook-name HOOK)")
    if group.hook_name != UNKNOWN and spec.hook_name not in (None, group.hook_name):
        raise UserError(f"the SAEs read hook_name {group.hook_name!r}, not {spec.hook_name!r}")
    return spec.hook_name or group.hook_name


def _is_modular(artifact: Artifact) -> bool:
    return hooks.is_for_addition(json.loads((artifact.path / "cfg.json").read_bytes()))


def _addition(
    spec: HeldOutSpec, artifact: Artifact, group: SAEGroup, trained_on: Activations | None, device: str
) -> tuple[Model, Sample]:
    from husai_core.benchmarks import sample
    from husai_core.models import modular

    group.check(artifact)
    dataset = modular.read_config(artifact.path)["dataset"]
    network = modular.ModularNetwork(modular.load(artifact.path, device), dataset["position"])
    pairs = sample.of_pairs(network, dataset["p"], group.position, spec.max_sequences, spec.seed, trained_on)
    return network, pairs


def _language(
    spec: HeldOutSpec, inputs: Inputs, group: SAEGroup, trained_on: Activations | None, device: str
) -> tuple[Model, Sample]:
    from husai_core.benchmarks import sample
    from husai_core.data import text
    from husai_core.models import language

    artifact = inputs.maybe("transformer")
    model = language.load(artifact.path if artifact else language.find(str(spec.model)), device)
    if not group.imported and group.saes[0].provenance["model_digest"] not in (
        model.digest,
        artifact and artifact.digest,
    ):
        raise UserError("the SAEs were not trained on activations of this model")
    documents = text.read([upload.path for upload in inputs.many("text")] or [assets.HELD_OUT])
    context, prepend_bos = spec.context, spec.prepend_bos
    if trained_on:
        context = trained_on.context if context is None else context
        prepend_bos = trained_on.prepend_bos if prepend_bos is None else prepend_bos
    sequences = sample.of_text(
        model.sequences(documents, context or min(CONTEXT, model.n_ctx), prepend_bos),
        spec.from_position,
        spec.special_tokens,
        spec.max_sequences,
        spec.seed,
        trained_on,
    )
    return model, sequences


def counter(job: Job, total: int) -> Callable[[int], None]:
    """Reports the sequences that were read, for every SAE and ablation anew."""
    done = 0

    def count(sequences: int) -> None:
        nonlocal done
        done += sequences
        job.progress(done, total, "sequences")

    return count


def estimate(spec: HeldOutSpec, facts: Facts, passes: float, random_saes: int) -> Work:
    """Some forward passes besides one for each SAE, reading up to the hook, and what the SAEs compute."""
    cfg = rows_work.model_config(spec.model) if spec.model else work.first(facts, "transformer")
    network, sae = work.Network.of(cfg), work.first(facts, "saes")
    d_in, n_saes = int(sae.get("d_in") or network.d_model), max(1, len(facts.get("saes", ()))) + random_saes
    d_sae = int(sae.get("d_sae") or 8 * d_in)
    length = work.LENGTH if "p" in cfg.get("dataset", {}) else spec.context or CONTEXT
    tokens = float(spec.max_sequences * length)
    held = min(tokens, rows_work.PASS_TOKENS)
    cost = work.Cost(
        (passes + n_saes) * network.forward(tokens, tokens)
        + network.forward(tokens)
        + 2 * n_saes * tokens * d_sae * d_in,
        network.held(held, 4) + 3 * work.FLOAT * min(held * network.d_vocab, MOST_LOGITS),
    )
    weights = work.FLOAT * (network.parameters + 2 * n_saes * d_sae * d_in)
    return cost.work(work.result_bytes(n_saes) + 10_000 * n_saes, base=weights + work.FLOAT * EXAMPLES * d_sae * 3)
