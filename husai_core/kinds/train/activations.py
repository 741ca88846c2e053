"""Collect activations at one or more hooks, with held-out splits, moments and effective rank.

`source: model` reads a trained transformer over all p² pairs; `untrained` reads a network of the same configuration
with fresh weights; `synthetic` draws rows from a world whose features are known (or, with `structureless: true`,
Gaussian rows of the same mean and covariance) and needs no transformer; `language` reads a language model on text.
Every row belongs to the training, validation or test split, and later jobs keep to it. Pairs or sequences of a text
that are alike up to the position read give one row there, so that no test row is the copy of a training row; where such
pairs have different sums, the label is -1.

A language model is built in, in the worker's mirror or cache, or a transformer artifact (trained or imported here); the
text is that of the `text` input, or two novels that the built-in model never saw, or with `domain` a built-in text:
excerpts of books that it was trained on (`classics`), or of another domain. Each document is cut into sequences of
`context` tokens, which begin with the beginning-of-sequence token if the tokeniser has one (`prepend_bos`). Every token
of the text gives a row (where sequences begin alike, one of them does), special tokens and padding none.
Sequences are drawn at random until there are `max_rows` rows, and each lies in one split. Several hooks are read in one
forward pass and give one artifact each, in their order; a hook inside attention gives the vectors of its heads side by
side. With `untrained`, the same tokens of the text are read by the model with fresh weights, so that the rows and their
split are those of the trained model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from husai_core import assets, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult, KeyFigures
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import rows_work, work
from husai_core.kinds.kind import BaseSpec, Facts, Kind, Port
from husai_core.models import hooks

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from husai_core.activations.store import Activations
    from husai_core.data.modular import Pairs
    from husai_core.data.text import TextFile

INPUTS = {
    "transformer": Port(
        "transformer", "the network to read, unless rows are synthetic or `model` names it", required=False
    ),
    "text": Port("upload", "language only: .txt and .md files to read", many=True, required=False),
}
OUTPUTS = {"activations": Port("activations", "rows with tokens and splits, one artifact per hook", many=True)}
LEAST_CONTEXTS = 16
MOST_CELLS = 10**9
NETWORKS = ("model", "untrained", "language")
READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("hook_name", "hook_names"), NETWORKS),
    **dict.fromkeys(("position", "leaks_label"), ("model", "untrained")),
    "untrained": ("language",),
    "untrained_seed": ("untrained", "language"),
    **dict.fromkeys(("world", "structureless"), ("synthetic",)),
    "transformer": NETWORKS,
    "text": ("language",),
    **dict.fromkeys(
        ("model", "domain", "context", "prepend_bos", "max_rows", "from_position", "special_tokens"), ("language",)
    ),
}
"""The sources that read a field or an input; what is not here is read by all."""


class World(BaseModel):
    """A synthetic world: sparse positive combinations of random unit directions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(16_384, ge=16, le=10_000_000, description="number of rows")
    n_features: int = Field(128, ge=1, le=65_536, description="true features")
    d_model: int = Field(64, ge=1, le=8192, description="width of a row")
    active: float = Field(4.0, gt=0, description="features that fire per row, on average")
    low: float = Field(0.5, gt=0, description="smallest magnitude of a firing feature")
    high: float = Field(1.5, gt=0, description="largest magnitude of a firing feature")

    @model_validator(mode="after")
    def _possible(self) -> World:
        if self.active > self.n_features or self.low > self.high:
            raise ValueError("a world needs active <= n_features and low <= high")
        if self.rows * self.n_features > MOST_CELLS:
            raise ValueError(f"{self.rows} rows of {self.n_features} features are more than {MOST_CELLS} numbers")
        return self


class Spec(BaseSpec):
    """What to read, and how to split it."""

    source: Literal["model", "untrained", "synthetic", "language"] = Field(
        "model", description="where the rows come from"
    )
    hook_name: str = Field("blocks.0.hook_resid_post", description="TransformerLens hook point")
    hook_names: list[str] = Field([], max_length=64, description="several hook points, in place of hook_name")
    position: Literal["bos", "first_operand", "second_operand", "answer", "answer_token"] = Field(
        "answer", description="token whose activations are read; `answer` is `=`, before the sum is shown"
    )
    leaks_label: bool = Field(False, description="declares that the input shows the answer (answer_token only)")
    untrained: Literal["no", "all", "keep_embeddings"] = Field(
        "no", description="language only: read the model with fresh weights; keep_embeddings keeps those of its tokens"
    )
    untrained_seed: int = Field(0, ge=0, lt=2**53, description="seed of the untrained network's weights")
    structureless: bool = Field(False, description="synthetic only: Gaussian rows with the world's mean and covariance")
    world: World = Field(default_factory=World, description="the synthetic world")
    model: str | None = Field(
        None, max_length=200, description="language only: a built-in model or Hugging Face id; else the input's"
    )
    domain: assets.Domain | None = Field(
        None, description="language only: a built-in text, in place of the input `text`"
    )
    context: int = Field(128, ge=2, le=131_072, description="language only: tokens per sequence")
    prepend_bos: bool | None = Field(
        None,
        description="language only: begin each sequence with the beginning-of-sequence token; null: if there is one",
    )
    max_rows: int = Field(1_000_000, ge=16, le=10**10, description="language only: most rows; sequences are sampled")
    from_position: int = Field(0, ge=0, description="language only: earlier tokens of each sequence give no row")
    special_tokens: bool = Field(False, description="language only: special tokens but padding give rows, too")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="number format of the stored rows")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the rows for selection and convergence")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for reported figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of the split and of the synthetic world")

    @model_validator(mode="after")
    def _possible(self) -> Spec:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave no rows for training")
        if self.leaks_label != (self.position == "answer_token"):
            raise ValueError("position answer_token shows the answer: it needs, and it alone allows, leaks_label: true")
        for name in READ_BY.keys() & type(self).model_fields.keys():
            if self.unread(name) and getattr(self, name) != self._default(name):
                raise ValueError(self.unread(name))
        if self.hook_names and self.hook_name != self._default("hook_name"):
            raise ValueError("hook_names stands in place of hook_name: give one of them")
        if len(set(self.hooks)) != len(self.hooks):
            raise ValueError("hook_names must be distinct")
        if self.model is not None and (problem := assets.name_problem(self.model)):
            raise ValueError(problem)
        if self.source == "language" and self.untrained == "no" and self.untrained_seed != 0:
            raise ValueError("untrained_seed is for untrained all or keep_embeddings, not no")
        if self.from_position >= self.context:
            raise ValueError(f"from_position {self.from_position} lies behind the context of {self.context} tokens")
        return self

    def unread(self, name: str) -> str:
        """Why a field or an input has no meaning here, or nothing."""
        sources = READ_BY.get(name, (self.source,))
        return "" if self.source in sources else f"{name} is for source {' or '.join(sources)}, not {self.source}"

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse inputs that the source does not read, and a source without a network."""
        if unread := [port for port in bound if self.unread(port)]:
            raise UserError(self.unread(unread[0]))
        if self.source == "language" and (self.model is None) == ("transformer" not in bound):
            raise UserError("source language needs either model or a transformer input, not both")
        if self.domain and "text" in bound:
            raise UserError("domain names a built-in text: give either it or the input text")
        if self.source in ("model", "untrained") and "transformer" not in bound:
            raise UserError(f"source {self.source} needs a transformer input")

    def check_facts(self, facts: Facts) -> None:
        """Refuse hooks that the network is known not to have."""
        if self.source != "synthetic":
            hooks.check(self.hooks, hooks.built_in(self.model) if self.model else work.first(facts, "transformer"))

    @classmethod
    def _default(cls, name: str) -> object:
        return cls.model_fields[name].get_default(call_default_factory=True)

    @property
    def hooks(self) -> list[str]:
        """The hook points to read."""
        return self.hook_names or [self.hook_name]


class Hook(BaseModel):
    """Figures of one hook over all rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hook_name: str
    d_model: int
    effective_rank: float = Field(description="exp of the entropy of the normalised singular values, centred rows")
    mean_norm: float = Field(description="mean Euclidean norm of a row")


class Result(BaseResult):
    """Figures over all rows; where there are several hooks, width, rank and norm are those of the first."""

    n_rows: int
    d_model: int
    effective_rank: float = Field(description="exp of the entropy of the normalised singular values, centred rows")
    mean_norm: float = Field(description="mean Euclidean norm of a row")
    hooks: list[Hook] = Field(description="in the order of the artifacts")
    rows_by_split: dict[str, int]
    leaks_label: bool = Field(description="the input at this position, or the network's training, showed the answer")

    @property
    def key_figures(self) -> KeyFigures:
        """Shape and rank of the rows."""
        names = ("n_rows", "d_model", "effective_rank", "leaks_label")
        return {name: getattr(self, name) for name in names}


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Collect the rows, split and store them."""
    from husai_core.seeding import seed_everything

    spec.check_ports(inputs.bound)
    seed_everything(spec.seed)
    configs = _language(spec, inputs, job) if spec.source == "language" else _small(spec, inputs, job)
    hooks = [Hook(**{name: cfg[name] for name in Hook.model_fields}) for cfg in configs]
    return Result(hooks=hooks, **{name: configs[0][name] for name in Result.model_fields if name != "hooks"})


def _small(spec: Spec, inputs: Inputs, job: Job) -> list[dict[str, Any]]:
    """Rows that fit into memory, stored; per hook, what `cfg.json` holds."""
    import torch

    from husai_core.activations import store

    collected = [_synthetic(spec)] if spec.source == "synthetic" else _read(spec, inputs, job)
    n_rows, dtype = len(collected[0].rows), getattr(torch, spec.dtype)
    job.progress(n_rows, n_rows, "rows")
    return [store.save(job.output("activations", "activations"), activations, dtype) for activations in collected]


def _language(spec: Spec, inputs: Inputs, job: Job) -> list[dict[str, Any]]:
    """Rows of a language model, stored as they come; per hook, what `cfg.json` holds."""
    import torch

    from husai_core.activations.extract import chosen, extract, rows_of
    from husai_core.activations.store import FACTS, Writer
    from husai_core.data.modular import split
    from husai_core.models import language

    facts: dict[str, Any] = dict.fromkeys(FACTS)
    model = language.load(_directory(spec, inputs), job.device)
    model.check_hooks(spec.hooks)
    if spec.untrained != "no":
        facts |= {"untrained": spec.untrained, "untrained_seed": spec.untrained_seed, "untrained_of": model.digest}
        model = model.untrained(spec.untrained_seed, spec.untrained == "keep_embeddings")
    documents = _documents(spec, inputs)
    sequences = model.sequences(documents, spec.context, spec.prepend_bos)
    rows = rows_of(sequences, spec.from_position, spec.special_tokens)
    index, kept = chosen(sequences.tokens, rows, spec.max_rows, spec.seed)
    job.log(f"{len(documents)} documents, {len(index)} of {len(rows)} sequences of {spec.context} tokens")
    parts = split(len(index), spec.validation_fraction, spec.test_fraction, spec.seed, "different sequences")
    facts |= {"position": "all", "source": spec.source, "model_digest": model.digest}
    facts |= {"leaks_label": False, "model": spec.model, "context": spec.context}
    facts |= {"domain": spec.domain} if spec.domain else {}
    facts |= {"prepend_bos": model.prepends_bos(spec.prepend_bos), "tokenizer_digest": model.tokenizer_digest}
    writers = {
        hook_name: Writer(
            job.output("activations", "activations"), facts | {"hook_name": hook_name}, getattr(torch, spec.dtype)
        )
        for hook_name in spec.hooks
    }
    extract(model, sequences.tokens[index], kept, parts, writers, job)
    return [writer.close() for writer in writers.values()]


def _documents(spec: Spec, inputs: Inputs) -> list[TextFile]:
    """The text that is read."""
    from husai_core.data import text

    if spec.domain:
        return [text.document(assets.domain(spec.domain), spec.domain)]
    return text.read([upload.path for upload in inputs.many("text")] or [assets.HELD_OUT])


def _directory(spec: Spec, inputs: Inputs) -> Path:
    """Where the language model lies."""
    from husai_core.models import language

    artifact = inputs.maybe("transformer")
    if artifact is None:
        return language.find(str(spec.model))
    return artifact.path


def _read(spec: Spec, inputs: Inputs, job: Job) -> list[Activations]:
    from husai_core.activations.rows import StoredRows
    from husai_core.activations.store import Activations
    from husai_core.data.modular import POSITIONS, split
    from husai_core.models import modular

    artifact = inputs.one("transformer")
    cfg = modular.read_config(artifact.path)
    trained, model = spec.source == "model", modular.ModularNetwork(modular.load(artifact.path, job.device))
    data = _contexts(cfg["dataset"]["p"], spec.position)
    network = model if trained else model.untrained(spec.untrained_seed)
    rows = network.read(data.tokens, spec.hooks, POSITIONS[spec.position])
    parts = split(len(data.label), spec.validation_fraction, spec.test_fraction, spec.seed)
    return [
        Activations(
            rows=StoredRows([rows[hook_name]]),
            tokens=data.tokens,
            label=data.label,
            split=parts,
            hook_name=hook_name,
            position=spec.position,
            source=spec.source,
            model_digest=artifact.digest if trained else None,
            p=data.p,
            leaks_label=spec.leaks_label or (trained and cfg["leaks_label"]),
        )
        for hook_name in spec.hooks
    ]


def _contexts(p: int, position: str) -> Pairs:
    """The different contexts up to a position; the label is -1 where pairs with different sums share one."""
    import torch

    from husai_core.data.modular import POSITIONS, Pairs, distinct, pairs

    data = pairs(p)
    tokens = data.tokens[:, : POSITIONS[position] + 1]
    first = distinct(tokens)
    if len(first) < LEAST_CONTEXTS:
        raise UserError(f"only {len(first)} different contexts at position {position}")
    label = data.label if len(first) == len(tokens) else torch.full((len(first),), -1)
    return Pairs(tokens[first], label, p)


def _synthetic(spec: Spec) -> Activations:
    import torch

    from husai_core.activations.rows import StoredRows
    from husai_core.activations.store import Activations
    from husai_core.data.modular import split
    from husai_core.data.synthetic import world

    size = spec.world
    source = world(spec.seed, size.n_features, size.d_model, size.active, size.low, size.high)
    draw = source.structureless if spec.structureless else source.sample
    return Activations(
        rows=StoredRows([draw(size.rows, spec.seed)]),
        tokens=torch.zeros(size.rows, 0, dtype=torch.int64),
        label=torch.full((size.rows,), -1),
        split=split(size.rows, spec.validation_fraction, spec.test_fraction, spec.seed),
        hook_name="synthetic",
        position="none",
        source="synthetic",
    )


def needed_assets(spec: Spec) -> list[str]:
    """The language model that is read by its name."""
    return [spec.model] if spec.source == "language" and spec.model else []


def present(result: Result) -> list[panels.AnyPanel]:
    """What was collected at which hooks, and how the rows are split."""
    first, n = result.hooks[0] if result.hooks else None, max(1, len(result.hooks))
    sentence = f"{result.n_rows} rows at {n} hook{'s' * (n > 1)}"
    if first and n == 1:
        sentence += (
            f" ({first.hook_name}) of width {first.d_model}: they vary in about {common.number(first.effective_rank)} "
            f"directions (effective rank)"
        )
    note = "The input shows the answer (leaks_label), so features of these rows may be copies of it."
    leaks = result.leaks_label
    headline = panels.Headline(text=f"{sentence}.", note=note * leaks, tone="bad" if leaks else "neutral")
    return [headline, _hooks(result), _splits(result)]


def _hooks(result: Result) -> panels.Table:
    columns = [
        panels.Column(label="hook"),
        panels.Column(label="width", format="integer"),
        panels.Column(label="eff. rank", digits=1, format="number"),
        panels.Column(label="mean norm", digits=2, format="number"),
    ]
    rows: list[list[panels.Cell]] = [[h.hook_name, h.d_model, h.effective_rank, h.mean_norm] for h in result.hooks]
    note = "In the order of the output `activations`. Effective rank: exp of the entropy of the singular values."
    return panels.Table(title="Hooks", note=note, columns=columns, rows=rows)


def _splits(result: Result) -> panels.Table:
    columns = [panels.Column(label="split"), panels.Column(label="rows", format="integer")]
    rows: list[list[panels.Cell]] = [[split, count] for split, count in result.rows_by_split.items()]
    return panels.Table(title="Splits", columns=columns, rows=rows)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run=run,
    estimate=rows_work.estimate,
    present=present,
    assets=needed_assets,
)
