"""Training of SAEs and transcoders: all seeds of a group in one stacked pass, with hand-written gradients.

The losses, for normalised rows x with target y (= x for an SAE), error e = y - x̂ and latents f:

- TopK: |e|² + aux_coefficient · |e - ê|², where ê decodes the k_aux largest dead latents and e is held constant
  (Gao et al. 2024, arXiv 2406.04093, section 2.4 and appendix A.2);
- ReLU: |e|² + l1 · Σ_j f_j, with unit decoder rows.

Both are means over the batch only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from husai_core.saes.codes import Code, DenseCode, chosen, largest, top
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE
from husai_core.seeding import generator

POINTS = 50
MEASURED_ROWS = 8192
Save = Callable[[Path], None]


@dataclass(kw_only=True)
class TrainedSAE(SAE):
    """An SAE fresh from training: fp32 weights on the CPU, for raw activations."""

    recipe: SAERecipe
    seed: int
    drift_from_init: float
    """Mean |cosine| between the final and the initial decoder rows: 1 where training moved nothing."""
    converged: bool
    """Validation error changed by less than 1 % over the last 10 % of the tokens, after a fall (see `converged`)."""
    curve: list[tuple[int, float]]
    """(tokens, validation sum of squared errors / sum of squares)."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps about the training."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            "drift_from_init": self.drift_from_init,
            "converged": self.converged,
            "transcoder": self.transcoder,
        }


@torch.no_grad()
def train(
    recipe: SAERecipe,
    rows: Tensor,
    seeds: Sequence[int],
    *,
    validation: Tensor,
    targets: Tensor | None = None,
    validation_targets: Tensor | None = None,
    device: str = "cpu",
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    on_state: Callable[[Save], None] | None = None,
    state: Path | None = None,
) -> list[TrainedSAE]:
    """Train one SAE per seed on `rows` [n, d_in], or transcoders from `rows` to `targets` [n, d_out].

    A seed fixes its member's initial weights and order of rows, whatever the other seeds are.

    Args:
        validation: rows [m, d_in] on which the curve and `converged` are measured; never trained on.
        on_step: called after every step with (rows seen by each member, rows in all, figures), where the figures are
            empty but at the points of the curve.
        on_state: called after every step with a function that writes a resumable state into a directory.
        state: directory with such a state, to go on from; the outcome is that of an uninterrupted run.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds must be distinct")
    bank = _Bank(recipe, seeds, rows.to(device), None if targets is None else targets.to(device))
    held_out = (validation.to(device), None if validation_targets is None else validation_targets.to(device))
    if state is not None:
        bank.load(state)
    every = max(1, recipe.steps // POINTS)
    for batch in _batches(seeds, len(rows), recipe.batch_size, bank.step * recipe.batch_size):
        if bank.step >= recipe.steps:
            break
        bank.advance(batch.to(device))
        point = bank.step % every == 0 or bank.step == recipe.steps
        if point:
            bank.measure(*held_out)
        if on_step:
            on_step(bank.tokens, recipe.steps * recipe.batch_size, bank.metrics() if point else {})
        if on_state:
            on_state(bank.save)
    return bank.members()


def converged(curve: Sequence[tuple[int, float]]) -> bool:
    """True when the error came to rest below where it started.

    Over the last 10 % of the tokens it changed by less than 1 %, up or down, and it is at least 1 % below the first
    point of the curve: an SAE that learned nothing has not converged.
    """
    end, last = curve[-1]
    before = [error for tokens, error in curve if tokens <= 0.9 * end]
    return bool(before) and abs(last - before[-1]) < 0.01 * before[-1] and last <= 0.99 * curve[0][1]


def _batches(seeds: Sequence[int], n: int, size: int, start: int) -> Iterator[Tensor]:
    """Indices [seeds, size] of consecutive batches; every epoch each seed draws a new permutation of its own."""

    def permutation(epoch: int) -> Tensor:
        return torch.stack([torch.randperm(n, generator=generator(seed, "order", epoch)) for seed in seeds])

    epoch, offset = divmod(start, n)
    stream = permutation(epoch)[:, offset:]
    while True:
        while stream.shape[1] < size:
            epoch += 1
            stream = torch.cat([stream, permutation(epoch)], dim=1)
        yield stream[:, :size]
        stream = stream[:, size:]


def _directions(seeds: Sequence[int], name: str, n: int, d: int) -> Tensor:
    """Random unit rows [seeds, n, d]."""
    drawn = torch.stack([torch.randn(n, d, generator=generator(seed, name)) for seed in seeds])
    return torch.nn.functional.normalize(drawn, dim=-1)


class _Scaler:
    """Mean and scale of rows [n, d]: normalised rows have mean 0 and, if `scale`, mean squared norm d."""

    def __init__(self, rows: Tensor, scale: bool) -> None:
        self.mean = rows.mean(0)
        deviation = float((rows - self.mean).square().mean().sqrt())
        self.scale = deviation if scale and deviation > 0 else 1.0

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.scale


class _Bank:
    """Stacked members (leading axis: seeds) in normalised units, their optimiser and their curves."""

    def __init__(self, recipe: SAERecipe, seeds: Sequence[int], rows: Tensor, targets: Tensor | None) -> None:
        self.recipe, self.seeds, self.transcoder = recipe, list(seeds), targets is not None
        self.input = _Scaler(rows, recipe.normalise)
        self.target = self.input if targets is None else _Scaler(targets, recipe.normalise)
        self.rows = self.input(rows)
        self.targets = self.rows if targets is None else self.target(targets)
        self.step, self.curve = 0, list[list[float]]()
        n, device = len(self.seeds), rows.device
        self.encoder, self.decoder = (rows.to(device) for rows in self._initial())
        self.b_enc = torch.zeros(n, recipe.d_sae, device=device)
        self.b_dec = torch.zeros(n, self.targets.shape[1], device=device)
        self.parameters = [self.encoder, self.b_enc, self.decoder, self.b_dec]
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.to_encoder, self.to_b_enc, self.to_decoder, self.to_b_dec = self.gradients
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.adam = torch.optim.Adam(self.parameters, lr=recipe.lr, fused=True)
        self.silent = torch.zeros(n, recipe.d_sae, dtype=torch.long, device=device)
        self.k_aux = recipe.k_aux or max(1, rows.shape[1] // 2)

    def _initial(self) -> tuple[Tensor, Tensor]:
        """Encoder and decoder rows [seeds, d_sae, d]: random unit directions, the same for both in an SAE."""
        decoder = _directions(self.seeds, "decoder", self.recipe.d_sae, self.targets.shape[1])
        if not self.transcoder:
            return decoder.clone(), decoder
        return _directions(self.seeds, "encoder", self.recipe.d_sae, self.rows.shape[1]), decoder

    @property
    def tokens(self) -> int:
        """Rows seen by each member."""
        return self.step * self.recipe.batch_size

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor, Code]:
        """Encoder input, pre-activations and latents of normalised rows."""
        x = x if self.transcoder else x - self.b_dec[:, None]
        z = torch.baddbmm(self.b_enc[:, None], x, self.encoder.transpose(1, 2))
        return x, z, DenseCode(z.relu()) if self.recipe.k is None else top(z, self.recipe.k)

    def _decode(self, code: Code) -> Tensor:
        return code.decode(self.decoder) + self.b_dec[:, None]

    def advance(self, batch: Tensor) -> None:
        """One optimiser step on the rows at indices `batch` [seeds, batch_size]."""
        rows = self.rows[batch]
        x, z, code = self._encode(rows)
        error = self._decode(code) - (self.targets[batch] if self.transcoder else rows)
        for gradient in self.gradients:
            gradient.zero_()
        upstream = error * (2 / error.shape[1])
        self.to_b_dec += upstream.sum(1)
        self._backward(x, code, upstream, (self.recipe.l1 or 0.0) / error.shape[1])
        self._revive(x, z, error)
        self.silent += error.shape[1]
        self.silent.masked_fill_(code.totals(code.values) > 0, 0)
        self._update()

    def _revive(self, x: Tensor, z: Tensor, error: Tensor) -> None:
        """Add the gradients of the auxiliary loss: dead latents reconstruct the residual -error."""
        dead = self.silent >= self.recipe.dead_after_tokens
        columns = dead.any(0).nonzero()[:, 0]
        if self.recipe.k is None or not self.recipe.aux_coefficient or not len(columns):
            return
        candidates = z[..., columns].masked_fill(~dead[:, None, columns], -torch.inf)
        values, indices = largest(candidates, min(self.k_aux, len(columns)))
        code = chosen(values, columns[indices], self.recipe.d_sae)
        upstream = (code.decode(self.decoder) + error) * (2 * self.recipe.aux_coefficient / error.shape[1])
        self._backward(x, code, upstream, 0.0)

    def _backward(self, x: Tensor, code: Code, upstream: Tensor, penalty: float) -> None:
        """Add the gradients that reach the weights through the latents `code` of encoder input x."""
        to_z = code.backward(self.decoder, upstream, penalty)
        to_bias = code.totals(to_z)
        self.to_decoder += code.outer(code.values, upstream)
        self.to_encoder += code.outer(to_z, x)
        self.to_b_enc += to_bias
        if not self.transcoder:
            self.to_b_dec -= (to_bias[:, None] @ self.encoder)[:, 0]

    def _update(self) -> None:
        """Adam, with decoder rows held at unit norm: parallel gradient projected out, then renormalised."""
        self.to_decoder -= (self.to_decoder * self.decoder).sum(-1, keepdim=True) * self.decoder
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step)
        self.adam.step()
        self.decoder /= self.decoder.norm(dim=-1, keepdim=True)
        self.step += 1

    def measure(self, rows: Tensor, targets: Tensor | None) -> None:
        """Append the validation error of each member to the curve."""
        y = rows if targets is None else targets
        errors = torch.zeros(len(self.seeds), device=rows.device)
        for start in range(0, len(rows), MEASURED_ROWS):
            part = slice(start, start + MEASURED_ROWS)
            x = self.input(rows[part]).expand(len(self.seeds), -1, -1)
            errors += (self._decode(self._encode(x)[2]) - self.target(y[part])).square().sum((1, 2))
        scale = self.target.scale**2 / float(y.square().sum())
        self.curve.append([float(self.tokens), *(errors * scale).tolist()])

    def metrics(self) -> dict[str, float]:
        """The latest validation errors, and the share of dead latents."""
        errors = self.curve[-1][1:]
        dead = (self.silent >= self.recipe.dead_after_tokens).double().mean()
        members = {f"normalised_mse/seed {seed}": error for seed, error in zip(self.seeds, errors, strict=True)}
        return {"normalised_mse": sum(errors) / len(errors), "dead_fraction": float(dead), **members}

    def members(self) -> list[TrainedSAE]:
        """The members with normalisation folded into their weights."""
        initial = self._initial()[1].to(self.decoder.device)
        drift = (self.decoder * initial).sum(-1).abs().mean(-1).tolist()
        return [self._member(i, drift[i]) for i in range(len(self.seeds))]

    def _member(self, i: int, drift: float) -> TrainedSAE:
        W_enc, b_enc = self.encoder[i].T, self.b_enc[i] * self.target.scale
        if self.transcoder:
            W_enc = W_enc * (self.target.scale / self.input.scale)
            b_enc = b_enc - self.input.mean @ W_enc
        curve = [(int(point[0]), point[1 + i]) for point in self.curve]
        return TrainedSAE(
            architecture=self.recipe.architecture,
            W_enc=_out(W_enc),
            b_enc=_out(b_enc),
            W_dec=_out(self.decoder[i]),
            b_dec=_out(self.target.mean + self.b_dec[i] * self.target.scale),
            k=self.recipe.k,
            apply_b_dec_to_input=not self.transcoder,
            transcoder=self.transcoder,
            recipe=self.recipe,
            seed=self.seeds[i],
            drift_from_init=drift,
            converged=converged(curve),
            curve=curve,
        )

    def save(self, directory: Path) -> None:
        """Write everything that the next step depends on."""
        tensors = {f"parameter{i}": p for i, p in enumerate(self.parameters)}
        for i, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"{name}{i}": value for name, value in moments.items()}
        curve = torch.tensor(self.curve, dtype=torch.float64).reshape(-1, 1 + len(self.seeds))
        tensors |= {"silent": self.silent, "curve": curve, "step": torch.tensor(self.step)}
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, directory / "state.safetensors")

    def load(self, directory: Path) -> None:
        """Go on from a state written by `save` with the same recipe, seeds and rows."""
        tensors = load_file(directory / "state.safetensors")
        moments = ("step", "exp_avg", "exp_avg_sq")
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter{i}"])
        optimiser = self.adam.state_dict()
        optimiser["state"] = {i: {m: tensors[f"{m}{i}"] for m in moments} for i in range(len(self.parameters))}
        self.adam.load_state_dict(optimiser)
        self.silent.copy_(tensors["silent"])
        self.curve, self.step = tensors["curve"].tolist(), int(tensors["step"])


def _out(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()
