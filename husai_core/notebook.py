"""What a notebook needs, as functions on tensors: load and save SAEs, train a bank, evaluate it, compare its seeds.

Everything that is returned to look at shows itself: as in a job's page in a notebook, as text elsewhere.
"""

from __future__ import annotations

import json
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from husai_core import panels
from husai_core.activations import store
from husai_core.errors import UserError
from husai_core.estimate import Estimate
from husai_core.importers import find
from husai_core.kinds.common.panels import interval, interval_row, pair_map, pair_points
from husai_core.local_job import LocalResult
from husai_core.saes import checkpoint
from husai_core.saes.evaluate import Figures, evaluate_all
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE
from husai_core.saes.trainer import TrainedSAE
from husai_core.saes.trainer import train as train_bank
from husai_core.stability import nulls
from husai_core.stability.halves import Doubled
from husai_core.stability.pairwise import ACTIVATION, DECODER, SUFFIXES, PairwiseOverlaps, against_nulls
from husai_core.stability.result_tables import Matrix
from husai_core.stability.seed_group import alike
from husai_core.wording import validated

BESIDE = ("cfg.json", "config.json")
"""Configurations that lie beside a file of weights."""


class View(ABC):
    """Panels to look at: HTML in a notebook, text elsewhere."""

    @property
    @abstractmethod
    def panels(self) -> Sequence[panels.AnyPanel]:
        """What there is to see."""

    def _repr_html_(self) -> str:
        from husai_core.render.notebook import Shown

        return Shown(self.panels)._repr_html_()

    def __repr__(self) -> str:
        from husai_core.render.notebook import Shown

        return repr(Shown(self.panels))


@dataclass(frozen=True, repr=False)
class Panels(View):
    """Any panels."""

    shown: Sequence[panels.AnyPanel]

    @property
    def panels(self) -> Sequence[panels.AnyPanel]:
        """What there is to see."""
        return self.shown


@dataclass(frozen=True, repr=False)
class Evaluation(View):
    """Figures of some SAEs on rows that they were not trained on, in their order."""

    figures: list[Figures]
    labels: list[str]

    @property
    def panels(self) -> Sequence[panels.AnyPanel]:
        """One row per SAE."""
        names = ("explained_variance", "normalised_mse", "l0", "dead_fraction")
        columns = [panels.Column(label="SAE")]
        columns += [panels.Column(label=name.replace("_", " "), format="number", digits=4) for name in names]
        rows: list[list[panels.Cell]] = [
            [label, *(getattr(figures, name) for name in names)]
            for label, figures in zip(self.labels, self.figures, strict=True)
        ]
        return [panels.Table(title="On held-out rows", columns=columns, rows=rows)]


@dataclass(frozen=True, repr=False)
class SeedComparison(View):
    """Every overlap of every pair of SAEs beside its chance level.

    `statistics` holds, by metric (`pwmcc` is the mean maximum cosine between seeds), its mean over pairs with an
    interval over seeds, its null (`pwmcc_gaussian_null`) and its excess (`pwmcc_excess`); `_alive` is over features
    that fire. `matrices` holds every metric of every pair.
    """

    labels: list[int]
    statistics: Mapping[str, Estimate]
    matrices: Mapping[str, Matrix]

    @cached_property
    def panels(self) -> Sequence[panels.AnyPanel]:
        """The overlap beside its chance level, every pair, and all statistics folded away."""
        overlap, excess = self.statistics["pwmcc"], self.statistics["pwmcc_excess"]
        null = self.statistics["pwmcc_gaussian_null"]
        text = (
            f"PWMCC (mean maximum cosine between seeds) is {interval(overlap)}, "
            f"{interval(excess)} above that of Gaussian decoders."
        )
        matrix = self.matrices["pwmcc"]
        rows = interval_row("SAEs", overlap, pair_points(matrix, self.labels)) + interval_row("Gaussian decoders", null)
        table: list[list[panels.Cell]] = [[name, value] for name, value in self.statistics.items()]
        columns = [panels.Column(label="statistic"), panels.Column(label="value", format="number")]
        return [
            panels.Headline(text=text),
            panels.Intervals(title="Overlap beside its chance level", rows=rows, x_label="PWMCC"),
            pair_map(matrix, self.labels, "PWMCC of every pair", null),
            panels.Table(title="All statistics", columns=columns, rows=table, folded=True),
        ]


def load_sae(path: str | Path) -> SAE:
    """The SAE in a folder or file of any known layout: ours, SAELens, sparsify, dictionary_learning, earlier, zip.

    Raises:
        UserError: there is no SAE, or there are several.
    """
    path = Path(path)
    if _ours(path):
        return checkpoint.load(path)
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    with tempfile.TemporaryDirectory() as scratch:
        folder, unpacked = Path(scratch, "in"), Path(scratch, "unpacked")
        folder.mkdir()
        unpacked.mkdir()
        contents = find([path if path.is_dir() else _alone(path, folder)], unpacked)
    saes = {thing.source: thing.value for thing in contents.things if isinstance(thing.value, SAE)}
    if len(saes) != 1:
        raise UserError(f"{path} holds {len(saes)} SAEs, not one" + (f": {', '.join(saes)}" if saes else ""))
    return next(iter(saes.values()))


def save_sae(sae: SAE, folder: str | Path) -> Path:
    """Write an SAE in the layout of SAELens 6 with what is known of its training; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(sae, TrainedSAE):
        checkpoint.save(sae, folder, sae.describe(), sae.half)
    else:
        checkpoint.save(sae, folder, sae.provenance)
    return folder


def load_rows(source: str | Path | LocalResult) -> store.Activations:
    """Stored activations, from their folder or from the job that wrote them; `.part("train")[:]` is a tensor [n, d]."""
    if isinstance(source, LocalResult):
        source = source.paths["activations"][0]
    return store.load(Path(source))


def train(
    rows: Tensor,
    validation: Tensor,
    seeds: Sequence[int] = (0, 1, 2),
    variants: Sequence[Mapping[str, Any]] = (),
    device: str = "cpu",
    **recipe: Any,
) -> list[TrainedSAE]:
    """Train a bank on rows [n, d], in one pass: every variant of the recipe with every seed, in their order.

    Args:
        rows: what is trained on.
        validation: rows [m, d] on which convergence is judged.
        seeds: one SAE each.
        variants: changes to the recipe, of which every one is trained; the recipe itself without them.
        device: `cpu` or `cuda`.
        recipe: fields of `SAERecipe`, such as `d_sae=512, k=16, tokens=1_000_000`.

    Raises:
        UserError: a field is wrong, or the rows are none, or the validation rows have another width.
        ValueError: the variants cannot be trained together.
    """
    rows, validation = _rows(rows, "rows"), _rows(validation, "validation")
    if rows.shape[1] != validation.shape[1]:
        raise UserError(f"rows have width {rows.shape[1]}, but validation has width {validation.shape[1]}")
    base = validated(SAERecipe, recipe)
    recipes = [base.changed(change) for change in variants] or [base]
    return train_bank(recipes, rows, seeds, validation=validation, device=device)


def evaluate(saes: SAE | Sequence[SAE], rows: Tensor, device: str = "cpu") -> Evaluation:
    """Explained variance, error, active and dead latents of SAEs on rows [n, d] that they were not trained on.

    Raises:
        UserError: the rows are none, or not as wide as an SAE reads.
    """
    saes = [saes] if isinstance(saes, SAE) else list(saes)
    rows = _read_by(saes, rows)
    return Evaluation(evaluate_all(saes, rows, device=device), [_label(sae, place) for place, sae in enumerate(saes)])


def compare_seeds(saes: Sequence[SAE], rows: Tensor) -> SeedComparison:
    """Do SAEs that differ in their seed alone find the same features, beyond chance?

    Chance is that of Gaussian decoders of the same shape, and for activation-matched overlaps that of random SAEs. The
    stress `stress.trained_vs_random` also trains the controls that chance alone does not cover: `run` it.

    Args:
        saes: at least two, of one shape; an interval needs three.
        rows: held-out rows [n, d] on which latents are compared.

    Raises:
        UserError: there are fewer than two, or they differ in their shape, or two of them are one.
    """
    if len(saes) < 2 or len({sae.W_dec.shape for sae in saes}) > 1:
        raise UserError("compare at least two SAEs of one shape")
    if any(alike(a, b) for a, b in combinations(saes, 2)):
        raise UserError("two of the SAEs have the same decoder weights, so they are one training and no two seeds")
    rows = _read_by(saes, rows)
    trained = PairwiseOverlaps(saes, rows)
    level = round(float((trained.latents[0] != 0).sum(1).float().mean())) or 1
    random = PairwiseOverlaps(nulls.random_saes(SAERecipe(d_sae=saes[0].d_sae, k=level), rows, range(len(saes))), rows)
    statistics = dict[str, Estimate]()
    for metric in (name + suffix for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES):
        chance = random.statistic(metric) if metric.startswith(ACTIVATION) else trained.gaussian(metric)
        statistics |= against_nulls(metric, Doubled(trained.statistic(metric)), Doubled(chance), {}).statistics
    labels = [_seed(sae) for sae in saes]
    seeds = [place for place, _ in enumerate(saes)] if None in labels else [int(label or 0) for label in labels]
    return SeedComparison(seeds, statistics, trained.matrices)


def show(thing: Any) -> None:
    """Show a result, an SAE, a list of panels, or anything that has panels: in a notebook's cell, or as printed text.

    Raises:
        UserError: there is nothing to see of it.
    """
    view = _view(thing)
    if "ipykernel" in sys.modules:
        import_module("IPython.display").display(view)
    else:
        print(view)


def _view(thing: Any) -> View:
    if isinstance(thing, View):
        return thing
    if isinstance(thing, SAE):
        paragraphs = [repr(thing), "Its quality on rows: hc.show(hc.evaluate(sae, rows))."]
        return Panels([panels.Text(paragraphs=paragraphs)])
    if hasattr(thing, "panels"):
        return Panels(thing.panels)
    if isinstance(thing, Sequence) and all(isinstance(panel, panels.Panel) for panel in thing):
        return Panels(thing)
    raise UserError(f"show takes a result, an SAE or a list of panels, not {type(thing).__name__}")


def _ours(path: Path) -> bool:
    """True where a folder is a checkpoint that says how it was trained, which other layouts cannot."""
    config = path / checkpoint.CONFIG
    return (path / checkpoint.WEIGHTS).is_file() and config.is_file() and "husai" in json.loads(config.read_bytes())


def _alone(path: Path, folder: Path) -> Path:
    """A folder that holds one file with the configuration beside it, and nothing else of the folder that it is in."""
    for file in (path, *(path.parent / name for name in (*BESIDE, f"{path.stem}.meta.pt"))):
        if file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def _rows(rows: Any, name: str) -> Tensor:
    """Rows [n, d] as a tensor of float32, of a tensor, an array or a list of lists.

    Raises:
        UserError: they are none.
    """
    try:
        tensor = torch.as_tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name}: give a tensor or an array [n, d], not {type(rows).__name__}") from None
    if tensor.ndim != 2 or not len(tensor):
        raise UserError(f"{name}: give n rows of width d, not the shape {list(tensor.shape)}")
    return tensor


def _read_by(saes: Sequence[SAE], rows: Any) -> Tensor:
    """The rows, which are as wide as all these SAEs read."""
    tensor = _rows(rows, "rows")
    if wrong := {sae.d_in for sae in saes} - {tensor.shape[1]}:
        raise UserError(f"the SAEs read rows of width {min(wrong)}, but these have width {tensor.shape[1]}")
    return tensor


def _seed(sae: SAE) -> int | None:
    seed = sae.seed if isinstance(sae, TrainedSAE) else sae.provenance.get("seed")
    return None if seed is None else int(seed)


def _label(sae: SAE, place: int) -> str:
    seed = _seed(sae)
    return f"{sae.architecture}, " + (f"number {place + 1}" if seed is None else f"seed {seed}")
