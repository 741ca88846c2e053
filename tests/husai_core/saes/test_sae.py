from typing import Any

import pytest
import torch
from torch import Tensor

from husai_core.saes.evaluate import evaluate
from husai_core.saes.sae import SAE, Architecture, scale_by_decoder_norms

D, N, EXPERTS, K = 6, 12, 3, 2


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = drawn(0, 40, D)
COMMON = {"W_enc": drawn(1, D, N), "W_dec": drawn(2, N, D), "b_dec": drawn(3, D)}
SPECIAL: dict[Architecture, dict[str, Any]] = {
    "topk": {"b_enc": drawn(4, N), "k": K},
    "relu": {"b_enc": drawn(4, N)},
    "jumprelu": {"b_enc": drawn(4, N), "threshold": drawn(5, N).abs()},
    "gated": {"b_gate": drawn(6, N), "r_mag": drawn(7, N) / 2, "b_mag": drawn(8, N)},
    "switch": {"b_enc": drawn(4, N), "W_router": drawn(9, D, EXPERTS), "b_router": drawn(10, D), "k": K},
}


def build(architecture: Architecture, **fields: Any) -> SAE:
    return SAE(architecture=architecture, **(COMMON | SPECIAL[architecture] | fields))


def test_a_gated_sae_lets_pass_what_its_gate_opens() -> None:
    sae, special = build("gated"), SPECIAL["gated"]
    for x, f in zip(X, sae.encode(X), strict=True):
        for j in range(N):
            weights, u = COMMON["W_enc"][:, j], x - COMMON["b_dec"]
            is_open = bool(u @ weights + special["b_gate"][j] > 0)
            magnitude = u @ (weights * special["r_mag"][j].exp()) + special["b_mag"][j]
            torch.testing.assert_close(f[j], magnitude.clamp(min=0) * is_open)


def test_a_switch_sae_uses_one_block_and_weighs_it_by_its_experts_probability() -> None:
    """Computed expert by expert, each an SAE of its own."""
    sae, special, size = build("switch"), SPECIAL["switch"], N // EXPERTS
    used = set()
    for x, f in zip(X, sae.encode(X), strict=True):
        probabilities = ((x - special["b_router"]) @ special["W_router"]).softmax(-1)
        expert = int(probabilities.argmax())
        block = slice(expert * size, (expert + 1) * size)
        z = (x - COMMON["b_dec"]) @ COMMON["W_enc"][:, block] + special["b_enc"][block]
        latents = torch.where(z >= z.topk(K).values[-1], z, 0.0).relu()
        wanted = torch.zeros(N)
        wanted[block] = probabilities[expert] * latents
        torch.testing.assert_close(f, wanted)
        reconstruction = probabilities[expert] * (latents @ COMMON["W_dec"][block]) + COMMON["b_dec"]
        torch.testing.assert_close(sae(x[None])[0], reconstruction)
        used.add(expert)
    assert used == set(range(EXPERTS))


@pytest.mark.parametrize("architecture", SPECIAL)
def test_every_architecture_is_evaluated(architecture: Architecture) -> None:
    sae = build(architecture)
    figures = evaluate(sae, X, batch_size=7)
    assert figures.l0 == float((sae.encode(X) != 0).sum()) / len(X)
    assert figures.l0 <= K or architecture not in ("topk", "switch")
    error = (sae.decode(sae.encode(X)) - X).double()
    assert figures.normalised_mse == pytest.approx(float(error.square().sum() / X.double().square().sum()))


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "gated"])
def test_decoder_norms_move_into_the_latents(architecture: Architecture) -> None:
    sae = build(architecture)
    latents, norms, output = sae.encode(X), sae.W_dec.norm(dim=1), sae(X)
    scale_by_decoder_norms(sae)
    torch.testing.assert_close(sae.encode(X), latents * norms)
    torch.testing.assert_close(sae(X), output)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(N))
