"""The assignment among the nearest partners, against that among all."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from husai_core.stability import matching, wide_matching
from husai_core.stability.matching import Assigned, assign, pw_mcc


def dictionaries(n: int, m: int, shared: float, d: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Two dictionaries [n, d] and [m, d] of which this share of the smaller is alike, in another order."""
    rng = torch.Generator().manual_seed(n + m)
    a, b = torch.randn(n, d, generator=rng), torch.randn(m, d, generator=rng)
    alike = round(shared * min(n, m))
    b[:alike] = a[:alike] + 0.4 * torch.randn(alike, d, generator=rng)
    return a, b[torch.randperm(m, generator=rng)]


def wide(a: torch.Tensor, b: torch.Tensor, patch: pytest.MonkeyPatch, signed: bool = False) -> Assigned:
    """The assignment of dictionaries of this size if they were too wide for all pairs."""
    with patch.context() as changed:
        changed.setattr(matching, "EXACT", 1)
        changed.setattr(wide_matching, "RESIDENT", 97 * len(b))
        return assign(a, b, signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("n", "m", "shared"), [(300, 300, 0.0), (300, 300, 0.5), (600, 600, 0.3), (300, 450, 0.5)])
def test_the_best_assignment_lies_within_the_stated_error(
    n: int, m: int, shared: float, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = dictionaries(n, m, shared)
    best = assign(a, b, signed)
    for nearest, error in ((3, 0.2), (32, 1e-3)):
        monkeypatch.setattr(wide_matching, "NEAREST", nearest)
        assigned = wide(a, b, monkeypatch, signed)
        assert assigned.mean <= best.mean + 1e-6
        assert best.mean <= assigned.mean + assigned.error + 1e-6
        assert assigned.error < error
        assert len(set(assigned.columns.tolist())) == n
    assert best.error < 1e-6


def test_wider_first_dictionaries_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = dictionaries(200, 150, 0.5)
    assigned = wide(a, b, monkeypatch)
    cosines = (normalize(a, dim=1) @ normalize(b, dim=1).T).abs()
    assert sorted(assigned.columns.tolist()) == list(range(150))
    assert torch.allclose(assigned.similarity.float(), cosines[assigned.rows, assigned.columns], atol=1e-5)
    assert assigned.mean == pytest.approx(pw_mcc(a, b), abs=1e-3)


def test_latents_that_never_fire_still_get_partners(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are equally far from all, so that all of them could have the same candidates."""
    a, b = dictionaries(200, 200, 0.5)
    a[:120] = 0
    assigned = wide(a, b, monkeypatch, signed=True)
    assert sorted(assigned.columns.tolist()) == list(range(200))
    best = assign(a, b, signed=True).mean
    assert assigned.mean - 1e-6 <= best <= assigned.mean + assigned.error + 1e-6
