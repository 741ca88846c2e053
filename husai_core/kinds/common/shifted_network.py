"""What a shift of the text costs inside the language model: probes on the latents, and KL recovered.

Needs the model besides its activations; for KL recovered, the texts, too. Light: no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from husai_core import assets
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import held_out, rows_work, work
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.kind import Facts

if TYPE_CHECKING:
    from husai_core.activations.store import Activations
    from husai_core.benchmarks.splice import Reading
    from husai_core.benchmarks.text_shift import Groups, OnText, Probes
    from husai_core.models.language import LanguageModel
    from husai_core.stability.halves import Figure, Measured

STATISTICS = {
    **{
        f"{prefix}{figure}_{domain}": values
        for prefix in ("", "random_")
        for figure, values in (("probe_accuracy", ranges.SHARE), ("kl_recovered", (-inf, 1.0)))
        for domain in ("id", "ood")
    },
    **{f"{prefix}probe_accuracy_drop": ranges.difference(ranges.SHARE) for prefix in ("", "random_")},
    **{f"{prefix}probe_accuracy_drop_excess": (-2.0, 2.0) for prefix in ("", "random_")},
    **{f"{prefix}kl_recovered_drop": ranges.UNBOUNDED for prefix in ("", "random_")},
}
"""What a release policy can read of it."""
ABLATED = 2


class InsideText(BaseResult):
    """What the SAEs keep of the model on one text, means over seeds unless said."""

    probe_accuracy: list[float] = Field(description="per seed, of a probe on the latents to the kind of the next token")
    raw_probe_accuracy: float = Field(description="of a probe on the raw activations")
    random_probe_accuracy: float = Field(description="of probes on random SAEs that are as sparse")
    kl_recovered: list[float | None] = Field([], description="per seed; none where the texts were not given")
    random_kl_recovered: float | None = None


class Settings(NamedTuple):
    """How much is read: rows that probes are fitted and tested on, sequences of each text, and the seed of both."""

    probe_rows: int
    max_sequences: int
    seed: int


def measure(
    name: str | None, inputs: Inputs, texts: Sequence[Activations], groups: Groups, settings: Settings, job: Job
) -> tuple[Measured, list[InsideText]]:
    """The figures on the text that the SAEs were trained on (`id`) and on the worst of the others (`ood`).

    Args:
        name: of the model, unless it is an input.
        inputs: the model at `transformer`, and perhaps `text`, and `shifted_text` of what was not read from a built-in
            text.
        texts: activations of the first text, then of the others.
        groups: the SAEs, those at half the tokens, and random ones.
        settings: how much is read.
        job: what it reports to.

    Raises:
        UserError: the activations are not of this model, or do not say where in a text they come from.
    """
    from husai_core.benchmarks import text_shift
    from husai_core.models import language
    from husai_core.stability.halves import Measured

    artifact = inputs.maybe("transformer")
    model = language.load(artifact.path if artifact else language.find(str(name)), job.device)
    for place, text in enumerate(texts):
        if text.model_digest != model.digest or text.tokenizer_digest not in (None, model.tokenizer_digest):
            raise UserError(f"activations number {place} are not of the model {name or 'given as transformer'}")
    probes = text_shift.probes(model, texts, groups, settings.probe_rows, settings.seed, job.device)
    measured = Measured()
    for prefix, group in (("", "saes"), ("random_", "random")):
        _add(measured, f"{prefix}probe_accuracy", probes.accuracy[group], (0.0, 1.0))
        of_drops = [probes.beyond_raw[group][0].drop_to(text) for text in probes.beyond_raw[group][1:]]
        measured.add_largest(f"{prefix}probe_accuracy_drop_excess", of_drops, (-2.0, 2.0))
    recovered = _recovered(inputs, texts, model, groups, settings, job)
    for prefix, group in (("", "saes"), ("random_", "random")):
        if recovered:
            _add(measured, f"{prefix}kl_recovered", [text[group] for text in recovered], (-inf, 1.0))
    return measured, _texts(probes, recovered)


def _add(measured: Measured, name: str, texts: Sequence[OnText], values: tuple[float, float]) -> None:
    """A figure on the first text, the worst of the others, and the largest loss."""
    measured.add(f"{name}_id", texts[0].level, values)
    measured.add_smallest(f"{name}_ood", [text.level for text in texts[1:]], values)
    drops: list[Figure] = [texts[0].drop_to(text) for text in texts[1:]]
    measured.add_largest(f"{name}_drop", drops, ranges.difference(values))


def _recovered(
    inputs: Inputs, texts: Sequence[Activations], model: LanguageModel, groups: Groups, settings: Settings, job: Job
) -> list[dict[str, OnText]]:
    """KL recovered by text and group; nothing where the other texts are not known."""
    from husai_core.benchmarks import text_shift

    if without_text(_cfgs(inputs), len(inputs.many("shifted_text"))):
        return []
    readings = _readings(inputs, texts[0], model, settings, job.device)
    passes = 1 + ABLATED + sum(map(len, groups.values()))
    count = held_out.counter(job, passes * sum(len(reading.sample) for reading in readings))
    return [text_shift.recovered(reading, groups, count) for reading in readings]


def _cfgs(inputs: Inputs) -> list[dict[str, Any]]:
    return [json.loads((artifact.path / "cfg.json").read_bytes()) for artifact in inputs.many("shifted")]


def without_text(shifted: Sequence[Mapping[str, Any]], uploads: int) -> int:
    """How many shifted activations, by their `cfg.json`, have no text: neither a built-in one nor an upload."""
    return sum(not cfg.get("domain") for cfg in shifted) - uploads


def _readings(
    inputs: Inputs, trained_on: Activations, model: LanguageModel, settings: Settings, device: str
) -> list[Reading]:
    """Sequences of every text that share nothing with those that the SAEs were trained on."""
    from husai_core.benchmarks import sample
    from husai_core.benchmarks.splice import Reading
    from husai_core.data import text

    uploads = (text.read([upload.path]) for upload in inputs.many("shifted_text"))
    documents = [text.read([upload.path for upload in inputs.many("text")] or [assets.HELD_OUT])]
    for cfg in _cfgs(inputs):
        domain = cfg.get("domain")
        documents.append([text.document(assets.domain(domain), domain)] if domain else next(uploads))
    readings = []
    for of_text in documents:
        context = trained_on.context or min(held_out.CONTEXT, model.n_ctx)
        sequences = model.sequences(of_text, context, trained_on.prepend_bos)
        drawn = sample.of_text(sequences, 0, False, settings.max_sequences, settings.seed, trained_on)
        readings.append(Reading(model, drawn, trained_on.hook_name, device))
    return readings


def _texts(probes: Probes, recovered: Sequence[Mapping[str, OnText]]) -> list[InsideText]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    texts = []
    for at, raw in enumerate(probes.raw):
        kl: dict[str, Any] = {}
        if recovered:
            kl["kl_recovered"] = [_known(value) for value in recovered[at]["saes"].values]
            kl["random_kl_recovered"] = _known(mean(recovered[at]["random"].values))
        texts.append(
            InsideText(
                probe_accuracy=probes.accuracy["saes"][at].values,
                raw_probe_accuracy=raw,
                random_probe_accuracy=mean(probes.accuracy["random"][at].values),
                **kl,
            )
        )
    return texts


def _known(value: float) -> float | None:
    """None where ablation hardly changes the predictions, so that there is no share to recover."""
    return value if value == value else None


def estimate(siblings: work.Siblings, name: str | None, facts: Facts, settings: Settings) -> work.Cost:
    """Probes on all SAEs, and the passes of all of them through the model."""
    network = work.Network.of(rows_work.model_config(name) if name else work.first(facts, "transformer"))
    saes, width, rows = siblings.seeds * (2 + siblings.halves), siblings.recipe.d_sae, float(settings.probe_rows)
    texts = 1 + len(facts["shifted"])
    small = min(rows, width)
    fits = work.Cost(
        saes * (2 * rows * width * small + 10 * small**3 + (1 + texts) * rows * width * siblings.d_in),
        8 * work.FLOAT * rows * width + network.held(0),
    )
    if without_text(facts["shifted"], len(facts.get("shifted_text", ()))):
        return fits
    context = int(work.first(facts, "activations").get("context") or held_out.CONTEXT)
    tokens = float(texts * settings.max_sequences * context)
    passes = (2 + ABLATED + saes) * network.forward(tokens, tokens) + 2 * saes * tokens * width * siblings.d_in
    held = min(tokens, rows_work.PASS_TOKENS)
    memory = network.held(held, 4) + 3 * work.FLOAT * min(held * network.d_vocab, held_out.MOST_LOGITS)
    return fits + work.Cost(passes, memory + work.FLOAT * network.parameters)
