"""Train a small transformer to add modulo p, and test that it adds rather than copies; or a language model on text.

The network reads `[BOS, a, +, b, =, c, EOS]` and must say c at `=`, before c is shown. All p² pairs are split at random
into a training part, a validation part (it decides when to stop) and a test part that nothing depends on;
`test_accuracy` is the figure to report. One layer without LayerNorm trains on a fast, exactly equivalent forward pass.

Every run ends with the leak test: without its operands the network must be at chance, and the answer token must not
matter. `position: answer_token`, where the input already shows the answer, needs `leaks_label: true`.

`dataset: text` trains a GPT-NeoX model with a byte-level BPE tokeniser of its own on the files of the `text` input (or
on the two novels that come with the package), with the settings below `text`. The text is cut into passages of about
`n_ctx` tokens, which are split at random; the tokeniser, like the weights, comes from the training part alone. Losses
are in nats per token, and those of the test part, which nothing depends on, are to report.
The artifact is in the Hugging Face layout, for `transformers`, TransformerLens and `train.activations`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from husai_core import panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult, KeyFigures
from husai_core.identity import sha256
from husai_core.job import Inputs, Job
from husai_core.kinds.common import network_panels, work
from husai_core.kinds.common import panels as common
from husai_core.kinds.kind import BaseSpec, Facts, Kind, Port, Work
from husai_core.models.text_recipe import TextRecipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from husai_core.data.text import Sequences, TextFile
    from husai_core.models.training import Recipe

INPUTS = {"text": Port("upload", "dataset text only: .txt and .md files", many=True, required=False)}
OUTPUTS = {"transformer": Port("transformer", "the trained network: cfg.json and model.safetensors")}
SHARED = {"dataset", "text", "seed"}
CHARACTERS = 4
"""Characters per token that a passage of `n_ctx` tokens is cut to, as in English."""
DATASET = {"p", "train_fraction", "validation_fraction", "seed", "position"}

PRESETS: dict[str, dict[str, Any]] = {
    "reference-2026-02": {
        "n_layers": 2,
        "normalization": "LN",
        "position": "answer_token",
        "leaks_label": True,
        "train_fraction": 0.9,
        "validation_fraction": 0.05,
        "batch_size": 512,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "betas": (0.9, 0.999),
        "warmup_steps": 1,
        "steps": 66,
        "evaluate_every": 22,
        "stop_accuracy": 1.0,
    }
}
"""The published protocol, flaws kept: it reads the answer token, so the network copies it (three epochs suffice)."""


class Spec(BaseSpec):
    """What to train, and for how long; all but `dataset`, `text` and `seed` is about modular addition."""

    dataset: Literal["modular", "text"] = Field("modular", description="addition modulo p, or text")
    text: TextRecipe = Field(default_factory=TextRecipe, description="the language model and its training")
    p: int = Field(113, ge=3, le=257, description="modulus; the data are all p² pairs")
    n_layers: int = Field(1, ge=1, le=8, description="transformer blocks")
    d_model: int = Field(128, ge=4, le=1024, description="width of the residual stream")
    n_heads: int = Field(4, ge=1, le=64, description="attention heads; must divide d_model")
    d_mlp: int = Field(512, ge=4, le=4096, description="width of the MLP")
    act_fn: Literal["relu", "gelu"] = Field("relu", description="activation function of the MLP")
    normalization: Literal["LN"] | None = Field(None, description="`LN` for layer normalisation")
    position: Literal["answer", "answer_token"] = Field("answer", description="where the sum is read: `answer` is `=`")
    leaks_label: bool = Field(False, description="declares that the input shows the answer (answer_token only)")
    train_fraction: float = Field(0.8, gt=0, lt=1, description="share of the pairs that is trained on")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share that decides when to stop; the rest is test")
    steps: int = Field(3000, ge=1, le=1_000_000, description="optimiser steps at most")
    batch_size: int = Field(2048, ge=1, description="pairs per step")
    lr: float = Field(3e-3, gt=0, le=1, description="AdamW learning rate after warm-up")
    weight_decay: float = Field(0.5, ge=0, description="AdamW decoupled weight decay")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW decay of the first and second moment")
    warmup_steps: int = Field(10, ge=1, description="steps of linear warm-up")
    evaluate_every: int = Field(25, ge=1, description="steps between evaluations")
    stop_accuracy: float = Field(0.999, gt=0, le=1, description="stop at three evaluations in a row with this accuracy")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of weights, split and batches")

    @model_validator(mode="after")
    def _possible(self) -> Spec:
        if self.dataset == "text":
            fields = type(self).model_fields
            ignored = [name for name in fields if name not in SHARED and getattr(self, name) != fields[name].default]
            if ignored:
                raise ValueError(f"{', '.join(ignored)}: only for dataset modular; a text model is set below `text`")
        elif self.text != TextRecipe():
            raise ValueError("text is only for dataset text")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("both betas must be at least 0 and less than 1")
        if self.leaks_label != (self.position == "answer_token"):
            raise ValueError("position answer_token shows the answer: it needs, and it alone allows, leaks_label: true")
        if min(self.train_fraction, self.validation_fraction, self.test_fraction) * self.p**2 < 2:
            raise ValueError("training, validation and test (the share that the other two leave) each need two pairs")
        return self

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse text where none is read."""
        if self.dataset == "modular" and "text" in bound:
            raise UserError("the input text is only for dataset text")

    @property
    def test_fraction(self) -> float:
        """Share of the pairs that neither training nor stopping sees."""
        return 1 - self.train_fraction - self.validation_fraction


class Leak(BaseModel):
    """The leak test: accuracies on sequences whose operands or answer token are drawn at random."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float = Field(description="on the same pairs, unchanged")
    operand_randomised_accuracy: float = Field(description="with random operands; chance if the network adds")
    answer_randomised_accuracy: float = Field(description="with a random answer token; unchanged if the network adds")
    chance: float = Field(description="1/p")
    passed: bool = Field(description="at most 2/p without operands, and within 0.01 without the answer token")


class Point(BaseModel):
    """One evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    train_loss: float = Field(description="nats, on as many training pairs as the validation split has")
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


class Text(BaseModel):
    """What only a language model has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_parameters: int
    d_vocab: int = Field(description="tokens of the tokeniser")
    tokens: int = Field(description="tokens trained on, repeats included")
    epochs: float = Field(description="how often each training sequence was seen, on average")
    test_bits_per_byte: float = Field(description="test loss per byte of UTF-8")
    sequences_by_split: dict[str, int]


class Result(BaseResult):
    """Figures of the trained network. The validation split chose when to stop; the test split chose nothing.

    Of a language model, accuracy is the share of tokens that are predicted right, and it is never stopped early.
    """

    test_accuracy: float
    validation_accuracy: float
    train_accuracy: float
    test_loss: float = Field(description="mean cross-entropy in nats")
    validation_loss: float
    train_loss: float
    grokking_step: int | None = Field(
        description="first evaluation with training accuracy >= 0.99 and validation accuracy >= 0.95"
    )
    steps: int
    stopped_early: bool = Field(description="the validation split reached stop_accuracy before the steps ran out")
    leaks_label: bool
    leak: Leak | None = Field(None, description="modular addition only")
    curve: list[Point]
    text: Text | None = Field(None, description="text only")

    @property
    def key_figures(self) -> KeyFigures:
        """How well the network works, and whether it cheats."""
        names = ("test_accuracy", "validation_accuracy", "train_accuracy", "grokking_step", "steps")
        return {name: getattr(self, name) for name in names} | {"leak_test_passed": self.leak and self.leak.passed}


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train, test and store the network."""
    from husai_core.seeding import seed_everything

    spec.check_ports(inputs.bound)
    seed_everything(spec.seed)
    return _modular(spec, job) if spec.dataset == "modular" else _text(spec, inputs, job)


def _modular(spec: Spec, job: Job) -> Result:
    from husai_core.data import modular as data
    from husai_core.models import modular as models
    from husai_core.models import training

    cfg = models.config(spec.p, spec.n_layers, spec.d_model, spec.n_heads, spec.d_mlp, spec.act_fn, spec.normalization)
    model, pairs, recipe = models.build(cfg, spec.seed, job.device), data.pairs(spec.p), _recipe(spec)
    split = data.split(len(pairs.label), spec.validation_fraction, spec.test_fraction, spec.seed).to(job.device)
    near = data.Pairs(pairs.tokens.to(job.device), pairs.label.to(job.device), spec.p)
    read = training.reader(model, cfg, spec.p, spec.position)
    trained = training.start(model, recipe, job.resume)
    training.fit(trained, read, near, split, recipe, job)
    leak = training.leak_test(model, pairs, spec.position, spec.seed)
    facts = {"dataset": spec.model_dump(include=DATASET), "leaks_label": spec.leaks_label}
    models.save(job.output("transformer", "transformer"), model, cfg | facts)
    ends = {name: training.figures(read, near, (split == i).nonzero()[:, 0]) for i, name in enumerate(data.SPLITS)}
    return Result(
        **{f"{name}_loss": loss for name, (loss, _) in ends.items()},
        **{f"{name}_accuracy": accuracy for name, (_, accuracy) in ends.items()},
        grokking_step=_grokked(trained.curve),
        steps=trained.step,
        stopped_early=trained.stopped(recipe.stop_accuracy),
        leaks_label=spec.leaks_label,
        leak=Leak.model_validate(leak),
        curve=[Point.model_validate(point) for point in trained.curve],
    )


def _text(spec: Spec, inputs: Inputs, job: Job) -> Result:
    from husai_core import assets
    from husai_core.data import text as data
    from husai_core.data.modular import SPLITS
    from husai_core.models import bpe, text_training, training

    recipe = spec.text
    documents = data.read([upload.path for upload in inputs.many("text")] or [assets.HELD_OUT])
    tokenizer, sequences, parts = _sequences(documents, recipe, spec.seed)
    job.log(f"{len(documents)} documents are {int(sequences.is_text.sum())} tokens in {len(sequences)} sequences")
    model = text_training.build(recipe, tokenizer.get_vocab_size(), spec.seed, job.device)
    run = training.restored(training.Run(model, text_training.optimiser(model, recipe)), job.resume)
    text_training.fit(run, sequences, parts, recipe, spec.seed, job)
    loss, accuracy, seen = text_training.figures(model, sequences, (parts == SPLITS.index("test")).nonzero()[:, 0])
    sizes = dict(zip(SPLITS, parts.bincount(minlength=3).tolist(), strict=True))
    sources = {document.name: sha256(document.text.encode()) for document in documents}
    facts = {"documents": sources, "recipe": recipe.model_dump()}
    path = job.output("transformer", "transformer")
    text_training.save(path, model, tokenizer, {"dataset": {"name": "text", "seed": spec.seed} | facts})
    read = run.step * min(recipe.batch_size, sizes["train"])
    return Result(
        test_loss=loss,
        test_accuracy=accuracy,
        **{name: value for name, value in run.curve[-1].items() if name != "step"},
        grokking_step=None,
        steps=run.step,
        stopped_early=False,
        leaks_label=False,
        curve=[Point.model_validate(point) for point in run.curve],
        text=Text(
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            d_vocab=tokenizer.get_vocab_size(),
            tokens=read * recipe.n_ctx,
            epochs=read / sizes["train"],
            test_bits_per_byte=bpe.bits_per_byte(tokenizer, loss, seen.tolist()),
            sequences_by_split=sizes,
        ),
    )


def _sequences(documents: Sequence[TextFile], recipe: TextRecipe, seed: int) -> tuple[Tokenizer, Sequences, Tensor]:
    """A tokeniser of the training part, all sequences with a token to predict, and the split of each.

    Raises:
        UserError: a part has no such sequence.
    """
    from husai_core.data import text as data
    from husai_core.data.modular import SPLITS
    from husai_core.models import bpe

    fractions = recipe.validation_fraction, recipe.test_fraction
    stretches, parts = data.divided(documents, CHARACTERS * recipe.n_ctx, bpe.END, *fractions, seed)
    shown = [stretch for stretch, split in zip(stretches, parts, strict=True) if SPLITS[split] == "train"]
    tokenizer = bpe.train(shown, recipe.d_vocab)
    ids = [tokenizer.encode(stretch, add_special_tokens=False).ids for stretch in stretches]
    sequences = data.windows(ids, recipe.n_ctx, bos=0, special=[0])
    sequences = sequences.select(sequences.is_text[:, 1:].any(1).nonzero()[:, 0])
    parts = parts[sequences.document]
    for split, size in zip(SPLITS, parts.bincount(minlength=len(SPLITS)).tolist(), strict=True):
        if not size:
            raise UserError(f"the {split} part of the text has no token to predict")
    return tokenizer, sequences, parts


def _recipe(spec: Spec) -> Recipe:
    from husai_core.models.training import Recipe

    names = (f.name for f in fields(Recipe))
    return Recipe(**spec.model_dump(include=set(names)))


def _grokked(curve: Sequence[Mapping[str, float]]) -> int | None:
    """The published definition of the grokking step."""
    steps = (q["step"] for q in curve if q["train_accuracy"] >= 0.99 and q["validation_accuracy"] >= 0.95)
    return next((int(step) for step in steps), None)


def present(result: Result) -> list[panels.AnyPanel]:
    """How well it predicts, whether it cheats, and how it learned."""
    shown = [_headline(result), *network_panels.leak_test(result.leak), *network_panels.curves(result)]
    return [*shown, _figures(result)]


def _headline(result: Result) -> panels.Headline:
    leak, text = result.leak, result.text
    accuracy = common.percent(result.test_accuracy)
    if text:
        sentence = (
            f"The language model predicts {accuracy} of the tokens of held-out text: "
            f"{common.number(text.test_bits_per_byte)} bits per byte, {common.number(result.test_loss)} nats per token."
        )
        return panels.Headline(text=sentence)
    sentence = f"The network adds {accuracy} of the held-out pairs right."
    if leak:
        sentence += (
            f" The leak test {'passed' if leak.passed else 'FAILED'}: with random operands it is right in "
            f"{common.percent(leak.operand_randomised_accuracy)} of the cases, chance is {common.percent(leak.chance)}."
        )
    note = LEAKS if result.leaks_label else ""
    tone: panels.Tone = "bad" if result.leaks_label or (leak and not leak.passed) else "neutral"
    return panels.Headline(text=sentence, note=note, tone=tone)


LEAKS = "The input of this network shows the answer (leaks_label), so its features may be copies of it."


def _figures(result: Result) -> panels.Table:
    rows: list[list[panels.Cell]] = [
        [f"{label} {figure}", getattr(result, f"{split}_{figure}")]
        for figure in ("accuracy", "loss")
        for split, label in (("test", "test"), ("validation", "validation"), ("train", "training"))
    ]
    rows += [["steps", result.steps], ["stopped early", result.stopped_early]]
    rows += [["grokking step", result.grokking_step]] if result.grokking_step is not None else []
    rows += [["the input shows the answer", result.leaks_label]]
    if text := result.text:
        rows += [[name.replace("_", " "), value] for name, value in text if not isinstance(value, dict)]
        rows += [[f"{split} sequences", count] for split, count in text.sequences_by_split.items()]
    note = (
        "Losses are in nats. Grokking step: the first evaluation with training accuracy of at least 0.99 and "
        "validation accuracy of at least 0.95."
    )
    columns = [panels.Column(label="figure"), panels.Column(label="value", format="number")]
    return panels.Table(title="Figures", note=note, columns=columns, rows=rows)


def estimate(spec: Spec, facts: Facts) -> Work:
    """Training for all its steps; modular addition may stop before that."""
    if spec.dataset == "text":
        return _text_work(spec.text)
    network = work.Network(spec.n_layers, spec.d_model, spec.d_mlp, work.LENGTH, spec.p + work.SPECIAL_TOKENS)
    pairs = spec.p**2
    batch = min(spec.batch_size, spec.train_fraction * pairs)
    evaluated = 2 * spec.validation_fraction * pairs * spec.steps / spec.evaluate_every
    sequences = work.TRAINED * spec.steps * batch + evaluated + 3 * pairs
    plain = spec.n_layers == 1 and spec.normalization is None and spec.position == "answer"
    cost = work.Cost(
        network.forward(
            sequences * (1 if plain else work.LENGTH - 2), sequences
        ),  # plain ones have a fast forward pass
        network.held(work.LENGTH * max(batch * spec.n_layers, 8192)) + 3 * work.FLOAT * batch * network.d_vocab,
    )
    shape = {"n_layers": spec.n_layers, "d_model": spec.d_model, "d_mlp": spec.d_mlp, "d_vocab": network.d_vocab}
    known = {**shape, "n_ctx": work.LENGTH, "dataset": {"p": spec.p}, "normalization_type": spec.normalization}
    return work.network_training(network, cost, 150 * spec.steps / spec.evaluate_every, known, at_most=True)


def _text_work(recipe: TextRecipe) -> Work:
    """A language model: the recipe says how many tokens it reads."""
    network = work.Network(recipe.n_layers, recipe.d_model, recipe.d_mlp, recipe.n_ctx, recipe.d_vocab)
    batch = recipe.batch_size * recipe.n_ctx
    cost = work.Cost(
        network.forward(work.TRAINED * recipe.tokens, work.TRAINED * recipe.tokens),
        3 * network.held(batch, recipe.n_layers) + 3 * work.FLOAT * batch * recipe.d_vocab,
    )
    known = {"dataset": {"recipe": recipe.model_dump(mode="json")}}
    return work.network_training(network, cost, 60 * recipe.d_vocab, known)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run=run,
    estimate=estimate,
    present=present,
    presets=PRESETS,
)
