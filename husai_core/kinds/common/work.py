"""How much work training and measuring is, for estimates. Light: no torch.

Units are multiply-adds. The figures are meant to be right within a factor of about two: a service turns units into
seconds by the speed that it measured on the same kind, and compares memory and bytes with what a machine has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from husai_core.kinds.kind import Facts, Work
from husai_core.saes.recipe import SPARSITY, SAERecipe

BASE_MEMORY = 400 * 2**20
"""Resident bytes of a process that has loaded the numerical libraries."""
OPTIMISER_MEMORY = 130 * 2**20
"""What torch's own optimisers and autograd load besides."""
FLOAT = 4
ADAM = 4 * FLOAT
"""Bytes per trained parameter: its value, its gradient and two moments."""
TRAINED = 3
"""A step forward and back costs three times the step forward."""
CURVE_POINTS = 50
MEASURED_ROWS, MEASURED_LATENTS = 8192, 2**25
HEADER = 2000
"""Bytes of a small artifact's `cfg.json` and of a file's header."""
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
UNKNOWN_WIDTH, UNKNOWN_ROWS, UNKNOWN_P = 512, 1_000_000, 113
"""What is assumed where nothing is known of an input."""
SPECIAL_TOKENS, LENGTH = 4, 7
"""Tokens besides the digits, and tokens per sequence, of modular addition."""
NULL_DRAWS = 200
PROFILED_ROWS = 8192


@dataclass(frozen=True)
class Network:
    """The size of a transformer."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_ctx: int
    d_vocab: int

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> Network:
        """The size that a transformer's `cfg.json` or `config.json` tells, or a usual one where it tells none."""
        shape = cfg.get("dataset", {}).get("recipe") or cfg
        d_model = int(shape.get("d_model") or shape.get("hidden_size") or UNKNOWN_WIDTH)
        return cls(
            n_layers=int(shape.get("n_layers") or shape.get("num_hidden_layers") or 6),
            d_model=d_model,
            d_mlp=int(shape.get("d_mlp") or shape.get("intermediate_size") or 4 * d_model),
            n_ctx=int(shape.get("n_ctx") or shape.get("max_position_embeddings") or 128),
            d_vocab=int(shape.get("d_vocab") or shape.get("vocab_size") or 32_768),
        )

    @property
    def blocks(self) -> int:
        """Parameters of the blocks."""
        return self.n_layers * (4 * self.d_model**2 + 2 * self.d_model * self.d_mlp)

    @property
    def parameters(self) -> int:
        """All parameters, embedding and unembedding included."""
        return self.blocks + (2 * self.d_vocab + self.n_ctx) * self.d_model

    def forward(self, tokens: float, predicted: float = 0) -> float:
        """Multiply-adds of some tokens through the blocks, of which some are unembedded."""
        attention = 2 * self.n_layers * self.n_ctx * self.d_model
        return tokens * (self.blocks + attention) + predicted * self.d_vocab * self.d_model

    def held(self, tokens: float, layers: int = 1) -> float:
        """Bytes that the values of some tokens take inside some blocks."""
        return FLOAT * tokens * layers * (4 * self.d_model + self.d_mlp)


def first(facts: Facts, port: str) -> Mapping[str, Any]:
    """What is known about the first artifact of a port; nothing where there is none."""
    return next(iter(facts.get(port, ())), {})


def split_rows(cfg: Mapping[str, Any], split: str) -> float:
    """Rows of one split of an activations artifact."""
    known = cfg.get("rows_by_split") or {}
    return float(known.get(split, SHARES[split] * float(cfg.get("n_rows") or UNKNOWN_ROWS)))


@dataclass(frozen=True)
class Cost:
    """Multiply-adds, and bytes held at once."""

    units: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.units + other.units, max(self.memory, other.memory))

    def work(self, written: float, outputs: Mapping[str, dict[str, Any]] | None = None, base: float = 0.0) -> Work:
        """The work of a job that costs this and holds `base` bytes besides all the time."""
        memory = BASE_MEMORY + base + self.memory
        return Work(units=self.units, memory_bytes=memory, written_bytes=written, outputs=dict(outputs or {}))


def network_training(
    network: Network, cost: Cost, written: float, transformer: dict[str, Any], at_most: bool = False
) -> Work:
    """Training of a network by torch's own optimiser; `written` bytes besides its weights, and what is known of it."""
    base = OPTIMISER_MEMORY + ADAM * network.parameters
    work = cost.work(FLOAT * network.parameters + HEADER + written, {"transformer": transformer}, base)
    return work.model_copy(update={"at_most": at_most})


def bank(
    recipes: Sequence[SAERecipe], seeds: int, d_in: int, d_out: int | None = None, validation: float = 0.0
) -> Cost:
    """Training of every recipe with every seed, with the halves, and the error on `validation` rows on the curve."""
    return Cost(
        sum(seeds * _member(recipe, d_in, d_out or d_in, validation) for recipe in recipes),
        _bank_memory(recipes, seeds, d_in, d_out or d_in),
    )


def _member(recipe: SAERecipe, d_in: int, d_out: int, validation: float) -> float:
    """Multiply-adds of one member: encode, decode the active latents, and the optimiser's step on all parameters."""
    parameters = recipe.d_sae * (d_in + d_out)
    encoded = recipe.latents_per_row * d_in
    if SPARSITY[recipe.architecture] == "k":
        row = encoded + TRAINED * (recipe.k or 1) * (d_in + d_out)
    else:
        row = TRAINED * parameters
    measured = min(CURVE_POINTS, recipe.steps) * validation * encoded
    with_half = 1 + recipe.decay_fraction / 2 if recipe.why_no_half is None else 1
    return with_half * (recipe.tokens * row + recipe.steps * 4 * parameters) + measured


def _bank_memory(recipes: Sequence[SAERecipe], seeds: int, d_in: int, d_out: int) -> float:
    """Parameters with their moments, also of the copies at half the tokens, and the latents that are held at once."""
    d_sae, batch = recipes[0].d_sae, recipes[0].batch_size
    trained = len(recipes) + sum(recipe.why_no_half is None for recipe in recipes)
    parameters = ADAM * trained * seeds * d_sae * (d_in + d_out)
    latents = max(batch * seeds * d_sae, min(MEASURED_ROWS * seeds * d_sae, MEASURED_LATENTS))
    return parameters + 2 * FLOAT * latents


def evaluation(recipes: Sequence[SAERecipe], seeds: int, d_in: int, rows: float) -> Cost:
    """Figures of every member on some rows."""
    latents = seeds * sum(recipe.d_sae for recipe in recipes)
    return Cost(rows * latents * d_in, 2 * FLOAT * min(rows, MEASURED_ROWS) * recipes[0].d_sae)


def checkpoint_bytes(d_sae: int, d_in: int, d_out: int | None = None) -> float:
    """Bytes of one SAE's checkpoint."""
    return FLOAT * (d_sae * (d_in + (d_out or d_in) + 1) + (d_out or d_in)) + HEADER


def overlaps(groups: int, seeds: int, d_sae: int, d_in: int, rows: float) -> Cost:
    """Every overlap of every pair of some groups, one at a time, on held-out rows, over all and alive features."""
    profiled = min(rows, PROFILED_ROWS)
    pairs = groups * seeds * (seeds - 1) / 2
    units = 2 * pairs * (2 * d_sae**2 * (d_in + profiled))
    return Cost(units, FLOAT * seeds * profiled * d_sae * 3)


def best_matches(groups: int, seeds: int, d_sae: int, d_in: int) -> Cost:
    """PWMCC of every pair of some groups over all features."""
    return Cost(groups * seeds * (seeds - 1) / 2 * d_sae**2 * d_in)


def gaussian_nulls(d_sae: int, d_in: int, shapes: int = 2) -> Cost:
    """Chance levels of the decoder measures, by simulation."""
    return Cost(shapes * NULL_DRAWS * d_sae**2 * d_in)


@dataclass(frozen=True)
class Siblings:
    """What is known of the SAEs that a stress is about: their recipe, their number and the width of their rows.

    Controls have as many seeds as the SAEs, or as their retrained copies, where there are some.
    """

    recipe: SAERecipe
    seeds: int
    d_in: int
    retrained: int = 0
    """1 where copies retrained here are measured too, else 0: how many groups there are besides."""

    @classmethod
    def of(cls, recipe: SAERecipe | None, facts: Facts) -> Siblings:
        """The SAEs at the port `saes`; `recipe` is what the spec says of imported ones."""
        cfg = first(facts, "saes")
        said = cfg.get("husai", {})
        known = recipe or SAERecipe.model_validate(said.get("recipe") or said.get("claimed_recipe") or {})
        width = first(facts, "activations").get("d_model") or first(facts, "transformer").get("d_model")
        counts = [len(facts.get(port, ())) for port in ("saes", "retrained")]
        return cls(known, max(1, *counts), int(cfg.get("d_in") or width or UNKNOWN_WIDTH), int(counts[1] > 0))

    @property
    def halves(self) -> int:
        """1 where copies at half the tokens are measured, else 0: how many times a group is measured once more."""
        return int(self.recipe.why_no_half is None)

    def training(self, groups: int, validation: float) -> Cost:
        """The same recipe and seeds on some groups of other rows."""
        cost = bank([self.recipe], self.seeds, self.d_in, validation=validation)
        return Cost(groups * cost.units, cost.memory)

    def comparison(self, groups: int, rows: float) -> Cost:
        """All overlaps of some groups with their Gaussian chance levels."""
        size = (self.recipe.d_sae, self.d_in)
        return overlaps(groups, self.seeds, *size, rows) + gaussian_nulls(*size)

    def measured(self, groups: int, rows: float) -> Cost:
        """Figures of every SAE of some groups on held-out rows."""
        cost = evaluation([self.recipe], self.seeds, self.d_in, rows)
        return Cost(groups * cost.units, cost.memory)

    def recipe_check(self, rows: float) -> Cost:
        """Figures and overlaps of the SAEs and their retrained copies, where there are some."""
        cost = self.measured(2 * self.retrained, rows)
        return cost + best_matches(2 * self.retrained, self.seeds, self.recipe.d_sae, self.d_in)

    def rows_bytes(self, rows: float) -> float:
        """Bytes of some rows."""
        return FLOAT * rows * self.d_in


def modular_pairs(facts: Facts) -> float:
    """All pairs of the modulus that the transformer adds by."""
    p = first(facts, "transformer").get("dataset", {}).get("p") or first(facts, "activations").get("p") or UNKNOWN_P
    return float(p) ** 2


def result_bytes(seeds: int, matrices: int = 1) -> float:
    """Bytes of a result document with some matrices of pairs."""
    return 4000 + 20.0 * matrices * seeds**2 + 400 * seeds
