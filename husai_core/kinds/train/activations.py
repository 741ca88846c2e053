"""Collect activations at one hook and one position, with held-out splits, moments and effective rank.

`source: model` reads a trained transformer over all p² pairs; `untrained` reads a network of the same configuration
with fresh weights; `synthetic` draws rows from a world whose features are known (or, with `structureless: true`,
Gaussian rows of the same mean and covariance) and needs no transformer. Every row belongs to the training, validation
or test split, and later jobs keep to it. Pairs that are alike up to the position read give one row, so that no test
row is the copy of a training row; where such pairs have different sums, the label is -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from husai_core.kinds import base

if TYPE_CHECKING:
    from husai_core.activations.store import Activations
    from husai_core.data.modular import Pairs

INPUTS = {"transformer": base.Port("transformer", "the network to read; not needed for synthetic rows", required=False)}
OUTPUTS = {"activations": base.Port("activations", "rows with tokens, labels and splits")}
LEAST_CONTEXTS = 16


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
        return self


class Spec(base.Spec):
    """What to read, and how to split it."""

    source: Literal["model", "untrained", "synthetic"] = Field("model", description="where the rows come from")
    hook_name: str = Field("blocks.0.hook_resid_post", description="TransformerLens hook point")
    position: Literal["bos", "first_operand", "second_operand", "answer", "answer_token"] = Field(
        "answer", description="token whose activations are read; `answer` is `=`, before the sum is shown"
    )
    leaks_label: bool = Field(False, description="declares that the input shows the answer (answer_token only)")
    untrained_seed: int = Field(0, ge=0, lt=2**53, description="seed of the untrained network's weights")
    structureless: bool = Field(False, description="synthetic only: Gaussian rows with the world's mean and covariance")
    world: World = Field(default_factory=World, description="the synthetic world")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the rows for selection and convergence")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for reported figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of the split and of the synthetic world")

    @model_validator(mode="after")
    def _possible(self) -> Spec:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave no rows for training")
        if self.leaks_label != (self.position == "answer_token"):
            raise ValueError("position answer_token shows the answer: it needs, and it alone allows, leaks_label: true")
        if self.structureless and self.source != "synthetic":
            raise ValueError("structureless rows are synthetic: set source: synthetic")
        return self


class Result(base.Result):
    """Figures over all rows."""

    n_rows: int
    d_model: int
    effective_rank: float = Field(description="exp of the entropy of the normalised singular values, centred rows")
    mean_norm: float = Field(description="mean Euclidean norm of a row")
    rows_by_split: dict[str, int]
    leaks_label: bool = Field(description="the input at this position, or the network's training, showed the answer")


def run(spec: Spec, inputs: base.Inputs, job: base.Job) -> Result:
    """Collect the rows, split and store them."""
    from husai_core.activations import store
    from husai_core.seeding import seed_everything

    seed_everything(spec.seed)
    found = _synthetic(spec) if spec.source == "synthetic" else _read(spec, inputs, job)
    n_rows = len(found.rows)
    job.progress(n_rows, n_rows, "rows")
    cfg = store.save(job.output("activations", "activations"), found)
    return Result(**{name: cfg[name] for name in Result.model_fields})


def _read(spec: Spec, inputs: base.Inputs, job: base.Job) -> Activations:
    from husai_core.activations.rows import Rows
    from husai_core.activations.store import Activations
    from husai_core.data.modular import split
    from husai_core.models import modular

    artifact = inputs.maybe("transformer")
    if artifact is None:
        raise base.KindError(f"source {spec.source} needs a transformer")
    cfg = modular.read_config(artifact.path)
    trained = spec.source == "model"
    model = modular.load(artifact.path, job.device) if trained else modular.build(cfg, spec.untrained_seed, job.device)
    data = _contexts(cfg["dataset"]["p"], spec.position)
    return Activations(
        rows=Rows([modular.activations(model, data.tokens, [spec.hook_name], spec.position)[spec.hook_name]]),
        tokens=data.tokens,
        label=data.label,
        split=split(len(data.label), spec.validation_fraction, spec.test_fraction, spec.seed),
        hook_name=spec.hook_name,
        position=spec.position,
        source=spec.source,
        model_digest=artifact.digest if trained else None,
        p=data.p,
        leaks_label=spec.leaks_label or (trained and cfg["leaks_label"]),
    )


def _contexts(p: int, position: str) -> Pairs:
    """The different contexts up to a position; the label is -1 where pairs with different sums share one."""
    import torch

    from husai_core.data.modular import POSITIONS, Pairs, distinct, pairs

    data = pairs(p)
    tokens = data.tokens[:, : POSITIONS[position] + 1]
    first = distinct(tokens)
    if len(first) < LEAST_CONTEXTS:
        raise base.KindError(f"only {len(first)} different contexts at position {position}")
    label = data.label if len(first) == len(tokens) else torch.full((len(first),), -1)
    return Pairs(tokens[first], label, p)


def _synthetic(spec: Spec) -> Activations:
    import torch

    from husai_core.activations.rows import Rows
    from husai_core.activations.store import Activations
    from husai_core.data.modular import split
    from husai_core.data.synthetic import world

    size = spec.world
    made = world(spec.seed, size.n_features, size.d_model, size.active, size.low, size.high)
    draw = made.structureless if spec.structureless else made.sample
    return Activations(
        rows=Rows([draw(size.rows, spec.seed)]),
        tokens=torch.zeros(size.rows, 0, dtype=torch.int64),
        label=torch.full((size.rows,), -1),
        split=split(size.rows, spec.validation_fraction, spec.test_fraction, spec.seed),
        hook_name="synthetic",
        position="none",
        source="synthetic",
    )
