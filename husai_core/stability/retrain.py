"""Retraining inside a stress: the same recipe and seeds on other rows, one group after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor

from husai_core.errors import UserError
from husai_core.job import Job
from husai_core.saes import checkpoint
from husai_core.saes.bank import Rows
from husai_core.saes.evaluate import evaluate
from husai_core.saes.sae import SAE
from husai_core.saes.trainer import TrainedSAE, train
from husai_core.stability.result_tables import Member
from husai_core.stability.seed_group import SeedGroup

FIGURES = ("normalised_mse", "dead_fraction")


class Trainings:
    """A known number of trainings with the recipe of some SAEs, reported as one progress; with their seeds, or others.

    `unconverged` names every training, those of the SAEs themselves included, that had not converged. `rows` is how
    many rows the last of them read; none before the first.
    """

    def __init__(self, job: Job, group: SeedGroup, count: int, seeds: Sequence[int] | None = None) -> None:
        self.job, self.recipe, self.count, self.finished = job, group.recipe, count, 0
        self.seeds = group.seeds if seeds is None else seeds
        self.imported = group.imported
        self.rows: int | None = None
        self.unconverged = [] if group.imported else unconverged("SAEs", group.seeds, group.converged)

    @property
    def converged(self) -> bool:
        """True when all trainings are known to have converged."""
        return not (self.imported or self.unconverged)

    def run(
        self,
        label: str,
        rows: Rows,
        validation: Rows,
        targets: Rows | None = None,
        validation_targets: Rows | None = None,
    ) -> list[TrainedSAE]:
        """Train one SAE (with targets, one transcoder) per seed; `label` names the group in the live curves.

        Raises:
            UserError: a training diverged.
        """

        def report(done: int, total: int, figures: dict[str, float]) -> None:
            done += self.finished * total
            self.job.progress(done, self.count * total, "rows")
            if figures:
                self.job.metrics(done, {f"{name}/{label}": figures[name] for name in FIGURES})

        trained = train(
            self.recipe,
            rows,
            self.seeds,
            validation=validation,
            targets=targets,
            validation_targets=validation_targets,
            device=self.job.device,
            on_step=report,
        )
        for sae in trained:
            _check(sae, sae.seed, label)
        for half, seed in zip(halves(trained), self.seeds, strict=False):
            _check(half, seed, label)
        self.finished += 1
        self.rows = rows.shape[0]
        self.unconverged += unconverged(label, self.seeds, [sae.converged for sae in trained])
        return trained


def unconverged(label: str, seeds: Sequence[int], converged: Sequence[bool | None]) -> list[str]:
    """The trainings of a group that had not converged, in words; nothing if all had."""
    young = [str(seed) for seed, rested in zip(seeds, converged, strict=True) if not rested]
    return [f"{label} (seed{'s'[: len(young) > 1]} {', '.join(young)})"] if young else []


def member(
    sae: SAE, seed: int, drift: float | None, converged: bool | None, rows: Tensor, targets: Tensor | None = None
) -> Member:
    """The table row of one SAE on held-out rows [n, d_in] (of a transcoder, also targets [n, d_out])."""
    figures = asdict(evaluate(sae, rows, targets))
    return Member(seed=seed, drift_from_init=drift, converged=converged, **figures)


def members(trained: Sequence[TrainedSAE], rows: Tensor, targets: Tensor | None = None) -> list[Member]:
    """The table of a trained group on held-out rows."""
    return [member(sae, sae.seed, sae.drift_from_init, sae.converged, rows, targets) for sae in trained]


def halves(trained: Sequence[TrainedSAE]) -> list[SAE]:
    """The same trainings' SAEs at half the tokens; none where the recipe has no half."""
    return [sae.half for sae in trained if sae.half is not None]


def _check(sae: SAE, seed: int, label: str) -> None:
    try:
        checkpoint.check(sae)
    except UserError as error:
        raise UserError(f"training of the {label} group with seed {seed} diverged: {error}") from error
