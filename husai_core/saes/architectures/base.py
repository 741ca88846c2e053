"""SAEs of one recipe that differ in their seed alone: stacked parameters, and one optimiser step for all of them.

Shapes: s members, b rows, n latents, d_in and d_out columns. The losses are in `losses`; each architecture has their
gradients written by hand, which is faster, and tests hold these against autograd.

Rows are centred, so pre-activations are z = x @ encoder + b_enc: subtracting the decoder bias from the input, as the
saved SAE does, would only be another way to write b_enc.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.resampling import resample
from husai_core.saes.codes import Code, Outer, Scattered, Sums
from husai_core.saes.kernels import Kernels
from husai_core.saes.kernels.torch_cpu import starts_of
from husai_core.saes.latents import Latents
from husai_core.saes.losses import LOSSES, Batch, Parameters
from husai_core.saes.objective import Forward, Objective
from husai_core.saes.recipe import SAERecipe
from husai_core.seeding import generator

LISTINGS = 16
"""How often the dead latents are listed again within the rows that it takes a latent to count as dead."""


@dataclass
class Gradients:
    """Gradients of one step: sums over the batch for the dictionaries, tensors for what is small."""

    encoder: list[Outer] = field(default_factory=list)
    decoder: list[Outer] = field(default_factory=list)
    small: dict[str, Tensor | float] = field(default_factory=lambda: defaultdict(float))


class StackedSAEs(ABC):
    """Stacked SAEs, or transcoders, with one recipe."""

    revives = False
    """Whether the loss has the auxiliary term that revives dead latents."""
    restart = 1.0
    """Length of the encoder row of a latent that starts anew, as a share of the mean length of those alive."""

    def __init__(
        self, recipe: SAERecipe, seeds: Sequence[int], d_in: int, d_out: int, transcoder: bool, kernels: Kernels
    ) -> None:
        self.recipe, self.seeds, self.transcoder, self.kernels = recipe, list(seeds), transcoder, kernels
        self.d_in, self.d_out, self.step = d_in, d_out, 0
        s, n = len(self.seeds), recipe.d_sae
        self.encoder, self.decoder = self.initial()
        self.small = {"b_enc": torch.zeros(s, n), "b_dec": torch.zeros(s, d_out)} | self.extras()
        self.silent = torch.zeros(s, n, dtype=torch.long)
        self.listed = torch.zeros(n, dtype=torch.bool)
        self.columns: Tensor | None = None
        self.moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in self.parameters.items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All that the optimiser moves, by name."""
        return {"encoder": self.encoder, "decoder": self.decoder, **self.small}

    @property
    def k(self) -> int | None:
        """Active latents per row in the next step; None where the recipe has no k."""
        return self.recipe.k_at(self.step)

    @property
    def b_dec(self) -> Tensor:
        """[s, d_out]."""
        return self.small["b_dec"]

    def initial(self) -> tuple[Tensor, Tensor]:
        """Encoder and decoder rows [s, n, d]: random unit directions, the same for both in an SAE."""
        decoder = directions(self.seeds, "decoder", self.recipe.d_sae, self.d_out)
        if not self.transcoder:
            return decoder.clone(), decoder
        return directions(self.seeds, "encoder", self.recipe.d_sae, self.d_in), decoder

    def extras(self) -> dict[str, Tensor]:
        """Further parameters of the architecture, by name, stacked."""
        return {}

    def prepare(self, x: Tensor) -> None:  # noqa: B027
        """Set what depends on data, from the first rows [s or 1, b, d_in]."""

    @abstractmethod
    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """Gradients on rows x [s or 1, b, d_in] and targets y, and how often each latent fired [s, n]."""

    @abstractmethod
    def inference(self, x: Tensor) -> Code:
        """Latents as the saved SAE computes them."""

    @abstractmethod
    def export(self, i: int) -> dict[str, Any]:
        """What `SAE` takes beside the weights and biases of member i, in normalised units."""

    def selected(self, parameters: Parameters, x: Tensor) -> Latents | None:
        """Active latents on training rows as a function of the parameters; None where all are computed anyway."""
        return None

    def differentiate(self, x: Tensor, y: Tensor, objective: Objective) -> tuple[Gradients, Tensor]:
        """As `gradients`, by autograd of the documented loss and of the objective's term."""
        parameters = {name: tensor.detach().requires_grad_() for name, tensor in self.parameters.items()}
        with torch.enable_grad():
            batch = Batch(x, y, self._revived(), self.recipe.sparsity_weight(self.step), self.k)
            selected = self.selected(parameters, x)
            loss, latents = LOSSES[self.recipe.architecture](parameters, batch, self.recipe, selected)
            forward = Forward(parameters, latents, batch, loss, self.recipe, self.step, objective.reference)
            total = objective.total(forward)
        computed = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
        by_name = {name: each.contiguous() for name, each in zip(parameters, computed, strict=True)}
        gradients = Gradients()
        gradients.encoder.append(Sums(by_name.pop("encoder").flatten(0, 1)))
        gradients.decoder.append(Sums(by_name.pop("decoder").flatten(0, 1)))
        gradients.small |= by_name
        return gradients, latents.fired()

    def predict(self, x: Tensor) -> Tensor:
        """Reconstructions [s, b, d_out] as the saved SAEs compute them."""
        return self.inference(x).decode(self.decoder) + self.b_dec[:, None]

    def to_pre_activations(self, gradients: Gradients, code: Code, to_z: Tensor, x: Tensor) -> None:
        """Add what follows from a gradient to the pre-activations, which is like the code's values."""
        gradients.encoder.append(code.outer(to_z, x))
        gradients.small["b_enc"] += code.totals(to_z)

    def revive(self, gradients: Gradients, x: Tensor, error: Tensor) -> None:
        """Add the gradients of `losses.revival`; error is [s, b, d_out]."""
        if not self.recipe.aux_coefficient:
            return
        dead = self.dead
        columns = self._columns(dead)
        if not len(columns):
            return
        encoder, decoder = self.encoder[:, columns], self.decoder[:, columns]
        z = torch.matmul(x, encoder.transpose(1, 2)).add_(self.small["b_enc"][:, None, columns])
        z.masked_fill_(~dead[:, None, columns], -torch.inf)
        values, places = self.kernels.largest(z, min(self.recipe.revived_per_row(self.d_in), len(columns)))
        f = torch.zeros_like(z).scatter_(-1, places, values.relu_())
        upstream = (f @ decoder + error) * (2 * self.recipe.aux_coefficient / error.shape[1])
        to_z = (upstream @ decoder.transpose(1, 2)).mul_(f > 0)
        gradients.decoder.append(self._selected(columns, f.transpose(1, 2) @ upstream))
        gradients.encoder.append(self._selected(columns, to_z.transpose(1, 2) @ x))
        gradients.small["b_enc"] += torch.zeros_like(self.small["b_enc"]).index_copy_(1, columns, to_z.sum(1))

    @property
    def dead(self) -> Tensor:
        """Latents [s, n] that have not fired for so long that they count as dead."""
        return self.silent >= self.recipe.dead_after_tokens

    def _revived(self) -> Tensor | None:
        """The dead latents [s, n] among those listed, which `revive` uses too; None without an auxiliary loss."""
        if not self.revives or not self.recipe.aux_coefficient:
            return None
        dead = self.dead
        self._columns(dead)
        return dead & self.listed

    def _columns(self, dead: Tensor) -> Tensor:
        """Latents that were dead in any member when they were last listed; only then does a step wait for a device."""
        if self.step % max(1, self.recipe.dead_after_tokens // self.recipe.batch_size // LISTINGS) == 0:
            self.listed.copy_(dead.any(0))
            self.columns = None
        if self.columns is None:
            self.columns = self.listed.nonzero()[:, 0]
        return self.columns

    def _selected(self, columns: Tensor, rows: Tensor) -> Outer:
        """Sums [s, c, d] of some latents only."""
        s, c, _ = rows.shape
        latents = (columns + self.recipe.d_sae * torch.arange(s, device=columns.device)[:, None]).flatten()
        source = torch.arange(s * c, dtype=torch.int32, device=columns.device)
        starts = starts_of(latents, s * self.recipe.d_sae)
        return Scattered(rows.new_ones(s * c), source, starts, rows.flatten(0, 1), self.kernels)

    def advance(self, x: Tensor, y: Tensor, objective: Objective | None = None) -> None:
        """One optimiser step on normalised rows and targets, with the gradients written by hand or an objective's."""
        if self.step == 0:
            self.prepare(x)
        gradients, fired = self.gradients(x, y) if objective is None else self.differentiate(x, y, objective)
        self.silent += y.shape[1]
        self.silent.masked_fill_(fired > 0, 0)
        lr = self.recipe.learning_rate(self.step)
        self.step += 1
        self._descend("decoder", gradients.decoder, lr)
        self._descend("encoder", gradients.encoder, lr)
        for name, weights in self.small.items():
            gradient = gradients.small[name]
            assert isinstance(gradient, Tensor)
            self.kernels.adam(weights, gradient, self.moments[name], lr, self.step, False)
        if self.recipe.resamples_after(self.step):
            resample(self, x, y)

    def _descend(self, name: str, sums: Sequence[Outer], lr: float) -> None:
        """Update a dictionary block by block, so that its whole gradient never exists."""
        weights, moments = self.parameters[name].flatten(0, 1), [m.flatten(0, 1) for m in self.moments[name]]
        size = max(1, self.kernels.block // weights.shape[1])
        for first in range(0, len(weights), size):
            rows = slice(first, min(first + size, len(weights)))
            gradient = sums[0].block(rows)
            for further in sums[1:]:
                gradient += further.block(rows)
            of_rows = (moments[0][rows], moments[1][rows])
            self.kernels.adam(weights[rows], gradient, of_rows, lr, self.step, unit=(name == "decoder"))

    def to(self, device: str) -> None:
        """Move everything that a step touches."""
        self.encoder, self.decoder = self.encoder.to(device), self.decoder.to(device)
        self.silent, self.listed = self.silent.to(device), self.listed.to(device)
        self.small = {name: tensor.to(device) for name, tensor in self.small.items()}
        self.moments = {name: (m.to(device), v.to(device)) for name, (m, v) in self.moments.items()}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; the tensors are the live ones."""
        tensors = {"silent": self.silent, "listed": self.listed, **self.parameters}
        for name, (first, second) in self.moments.items():
            tensors |= {f"{name}.first": first, f"{name}.second": second}
        return tensors


def directions(seeds: Sequence[int], name: str, n: int, d: int) -> Tensor:
    """Random unit rows [seeds, n, d]."""
    drawn = torch.stack([torch.randn(n, d, generator=generator(seed, name)) for seed in seeds])
    return torch.nn.functional.normalize(drawn, dim=-1)
