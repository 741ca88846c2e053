"""How an SAE is trained: everything but the data and the seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import ceil
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Architecture = Literal["topk", "relu", "batchtopk", "matryoshka", "switch", "jumprelu", "gated"]
SPARSITY: dict[str, str] = {
    "topk": "k",
    "batchtopk": "k",
    "matryoshka": "k",
    "switch": "k",
    "relu": "l1",
    "gated": "l1",
    "jumprelu": "target_l0",
}
"""The field that says how sparse an architecture is; the others' are refused."""
SPECIAL = {
    "prefixes": {"matryoshka"},
    "experts": {"switch"},
    "balance": {"switch"},
    "l0_coefficient": {"jumprelu"},
    "bandwidth": {"jumprelu"},
    "sparsity_warmup_fraction": {"relu", "gated", "jumprelu"},
    "k_start": {"topk", "batchtopk", "matryoshka", "switch"},
    "k_rise_fraction": {"topk", "batchtopk", "matryoshka", "switch"},
    "resample_tokens": {"topk", "batchtopk", "matryoshka", "relu"},
    "resample_fraction": {"topk", "batchtopk", "matryoshka", "relu"},
    "aux_coefficient": {"topk", "batchtopk", "matryoshka", "switch"},
    "k_aux": {"topk", "batchtopk", "matryoshka", "switch"},
}
"""Fields that only some architectures read."""
USUAL_K = 8
SHARED = ("d_sae", "tokens", "batch_size", "normalise", "order_seed")
"""Fields in which all members of a bank agree."""
RISEN_BY = 0.4
"""Share of half the steps by which all that rises or starts anew has ended: then half and whole are one recipe."""


class SAERecipe(BaseModel):
    """Architecture, budget and optimiser of one SAE or transcoder.

    Losses are in normalised units: rows are centred and scaled so that their mean squared norm is their width.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    architecture: Architecture = Field("topk", description="how latents are made sparse; see husai_core.saes")
    d_sae: int = Field(128, ge=1, description="number of latents")
    k: int | None = Field(
        None,
        ge=1,
        description="active latents per row (batchtopk, matryoshka: on average); 8 if left out where it is read",
    )
    k_start: int | None = Field(
        None, ge=1, description="active latents per row in the first step, from which they rise to k; always k if unset"
    )
    k_rise_fraction: float = Field(0.2, ge=0, le=1, description="share of the steps in which k_start rises to k")
    l1: float | None = Field(None, ge=0, description="weight of the summed latents in the loss (relu, gated)")
    target_l0: float | None = Field(None, gt=0, description="active latents per row that are aimed at (jumprelu)")
    l0_coefficient: float = Field(10.0, ge=0, description="weight of (L0 / target_l0 - 1)² in the loss (jumprelu)")
    bandwidth: float = Field(0.1, gt=0, description="width of the straight-through estimate at a threshold (jumprelu)")
    prefixes: tuple[int, ...] = Field(
        (), description="widths that also reconstruct (matryoshka); d_sae/8, /4, /2 if ()"
    )
    experts: int = Field(8, ge=2, description="blocks of latents, of which each row uses one (switch)")
    balance: float = Field(1.0, ge=0, description="weight of the loss that spreads rows over the experts (switch)")
    tokens: int = Field(1_200_000, ge=1, description="rows seen in training, counted with repetition")
    batch_size: int = Field(512, ge=1, description="rows per step")
    lr: float = Field(3e-3, gt=0, description="peak learning rate of Adam")
    warmup_fraction: float = Field(0.05, ge=0, le=1, description="share of the steps with rising learning rate")
    decay_fraction: float = Field(0.2, ge=0, le=1, description="share of the steps with falling learning rate")
    sparsity_warmup_fraction: float = Field(0.1, ge=0, le=1, description="share of the steps in which l1 or L0 rises")
    aux_coefficient: float = Field(1 / 32, ge=0, description="weight of the loss that revives dead latents (k only)")
    k_aux: int | None = Field(None, ge=1, description="dead latents per row in that loss; half the row width if unset")
    dead_after_tokens: int = Field(20_000, ge=1, description="rows without firing after which a latent is dead")
    resample_tokens: int | None = Field(
        None, ge=1, description="rows after which dead latents start anew, time and again; never if unset"
    )
    resample_fraction: float = Field(0.2, ge=0, le=1, description="share of the steps in which dead latents start anew")
    measure_half: bool = Field(
        True,
        description="keep a copy of every SAE that comes to rest at half the tokens, for decay_fraction / 2 more steps",
    )
    normalise: bool = Field(True, description="scale rows to unit variance, folded into the saved weights")
    order_seed: int | None = Field(
        None, ge=0, lt=2**53, description="one order of the rows for all seeds of a bank; each seed its own if unset"
    )

    @model_validator(mode="before")
    @classmethod
    def _usual_k(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and SPARSITY.get(str(fields.get("architecture", "topk"))) == "k":
            return {"k": USUAL_K, **fields}
        return fields

    @model_validator(mode="after")
    def _sparsity(self) -> Self:
        needed = SPARSITY[self.architecture]
        if others := [name for name in ("k", "l1", "target_l0") if name != needed and getattr(self, name) is not None]:
            raise ValueError(f"{others[0]} is not read by {self.architecture}, whose sparsity is {needed}")
        if getattr(self, needed) is None:
            raise ValueError(f"a {self.architecture} SAE needs {needed}")
        if self.k is not None and self.k > self.latents_per_row:
            width = "d_sae" if self.latents_per_row == self.d_sae else "d_sae / experts"
            raise ValueError(f"k = {self.k} is larger than {width} = {self.latents_per_row}")
        if self.k is not None and self.k_start is not None and self.k_start >= self.k:
            raise ValueError(f"k_start = {self.k_start} must lie below k = {self.k}")
        if self.target_l0 is not None and self.target_l0 > self.d_sae:
            raise ValueError(f"target_l0 = {self.target_l0:g} is larger than d_sae = {self.d_sae}")
        return self

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.architecture == "switch" and self.d_sae % self.experts:
            raise ValueError(f"d_sae = {self.d_sae} is not a multiple of experts = {self.experts}")
        if list(self.prefixes) != sorted({p for p in self.prefixes if 0 < p < self.d_sae}):
            raise ValueError("prefixes must rise, and lie between 0 and d_sae")
        return self

    def check_read(self, architectures: Collection[str]) -> None:
        """Raise ValueError if a field has not its usual value although none of these architectures reads it."""
        if ignored := self.unread(architectures):
            raise ValueError(f"recipe.{', recipe.'.join(ignored)}: not read by a {' or '.join(architectures)} SAE")

    def unread(self, architectures: Collection[str]) -> list[str]:
        """Fields that have not their usual value although none of these architectures reads them."""
        unused = [name for name, readers in SPECIAL.items() if not readers & set(architectures)]
        changed = [name for name in unused if getattr(self, name) != type(self).model_fields[name].default]
        read = {SPARSITY[architecture] for architecture in architectures}
        usual = {"k": USUAL_K, "l1": None, "target_l0": None}
        return changed + [n for n, value in usual.items() if n not in read and getattr(self, n) not in (None, value)]

    @property
    def read(self) -> SAERecipe:
        """The same training, with every field that the architecture does not read at its default."""
        names = self.unread([self.architecture])
        return self.model_copy(update={name: type(self).model_fields[name].default for name in names})

    def changed(self, change: Mapping[str, Any]) -> SAERecipe:
        """This recipe with other fields; of its own it keeps what the architecture reads.

        Raises:
            ValueError: the result is no recipe, or its architecture does not read a field that `change` sets.
        """
        sparsity = SPARSITY.get(str(change.get("architecture", self.architecture)))
        kept = self.model_dump(exclude_none=True, exclude={*SPARSITY.values()} - {sparsity})
        recipe = SAERecipe.model_validate({**kept, **change})
        if ignored := [name for name in recipe.unread([recipe.architecture]) if name in change]:
            raise ValueError(f"{', '.join(ignored)}: not read by a {recipe.architecture} SAE")
        return recipe.read

    @property
    def latents_per_row(self) -> int:
        """Latents among which a row may choose."""
        return self.d_sae // self.experts if self.architecture == "switch" else self.d_sae

    def revived_per_row(self, d_in: int) -> int:
        """Dead latents that reconstruct a row's error in the auxiliary loss; see `k_aux`."""
        return self.k_aux or max(1, d_in // 2)

    @property
    def levels(self) -> list[int]:
        """Widths that reconstruct on their own, the last of them d_sae (matryoshka)."""
        halves = [self.d_sae // divisor for divisor in (8, 4, 2)]
        return [*(self.prefixes or sorted({width for width in halves if width})), self.d_sae]

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return ceil(self.tokens / self.batch_size)

    @property
    def half_steps(self) -> int:
        """Steps of the copy that is measured at half the tokens."""
        return self.steps // 2

    @property
    def half_from(self) -> int:
        """Steps after which that copy leaves the main run, and its learning rate falls."""
        return self.half_steps - int(self.decay_fraction * self.half_steps)

    @property
    def halved(self) -> SAERecipe:
        """The training of that copy: half the steps, in which all that rises takes as many as in this one."""
        longer = self.steps / self.half_steps
        rising = {name: min(1.0, longer * share) for name, share in self._rising.items()}
        change = {"tokens": self.half_steps * self.batch_size, "measure_half": False, **rising}
        return self.model_copy(update=change)

    @property
    def why_no_half(self) -> str | None:
        """Why no copy is measured at half the tokens, as a sentence; None where one is."""
        if not self.measure_half:
            return "The recipe leaves the measurement at half the tokens out (measure_half)."
        if self.steps < 2:
            return "A training of one step has no half."
        if self.decay_fraction > 1 / 2:
            return f"The learning rate falls before half the tokens (decay_fraction = {self.decay_fraction:g} > 0.5)."
        for name, share in self._rising.items():
            if share > RISEN_BY / 2:
                return f"What rises at first ends too late for a half ({name} = {share:g} > {RISEN_BY / 2:g})."
        return None

    @property
    def _rising(self) -> dict[str, float]:
        """The shares of the steps in which something rises or starts anew, of what this recipe has."""
        shares = {"warmup_fraction": self.warmup_fraction}
        if self.k is None:
            shares["sparsity_warmup_fraction"] = self.sparsity_warmup_fraction
        elif self.k_start is not None:
            shares["k_rise_fraction"] = self.k_rise_fraction
        if self.resample_tokens is not None:
            shares["resample_fraction"] = self.resample_fraction
        return shares

    def k_at(self, step: int) -> int | None:
        """Active latents per row in a step counted from 0: equally many steps for each number from k_start to k."""
        if self.k is None or self.k_start is None:
            return self.k
        share = min(1.0, step / max(1.0, self.k_rise_fraction * self.steps))
        return self.k_start + int(share * (self.k - self.k_start))

    def resamples_after(self, steps: int) -> bool:
        """Whether dead latents start anew once so many steps are done."""
        if self.resample_tokens is None or steps > self.resample_fraction * self.steps:
            return False
        return steps % max(1, self.resample_tokens // self.batch_size) == 0

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step counted from 0: linear warm-up, plateau, linear decay towards 0."""
        rise = (step + 1) / max(1.0, self.warmup_fraction * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay_fraction * self.steps)
        return self.lr * min(1.0, rise, fall)

    def sparsity_weight(self, step: int) -> float:
        """Share of the sparsity penalty that counts in a step counted from 0."""
        return min(1.0, (step + 1) / max(1.0, self.sparsity_warmup_fraction * self.steps))


def unsaid(fields: Mapping[str, Any]) -> list[str]:
    """The names of what some fields of a recipe do not say, and without which a training cannot be repeated."""
    sparsity = SPARSITY.get(fields.get("architecture", ""))
    needed = ("architecture", "d_sae", sparsity, "tokens", "batch_size", "lr")
    return [name for name in needed if name and name not in fields]


def together(recipes: Sequence[SAERecipe]) -> None:
    """Raise ValueError unless the recipes can be trained in one pass."""
    for name in SHARED:
        if len({getattr(recipe, name) for recipe in recipes}) > 1:
            raise ValueError(f"all members of a bank have the same {name}")
    if len({recipe.read for recipe in recipes}) < len(recipes):
        raise ValueError("two members of a bank have the same recipe, but for what their architecture does not read")
