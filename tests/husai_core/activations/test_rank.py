import pytest
import torch

from husai_core.activations.rank import effective_rank


def test_known_spectra() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6)).Q
    square = torch.cat([basis[:3], -basis[:3]])
    assert effective_rank(square) == pytest.approx(3.0, abs=1e-5)
    assert effective_rank(square + 100) == pytest.approx(3.0, abs=1e-3)  # the mean does not count
    assert effective_rank(torch.ones(5, 4)) == 0.0


def test_every_row_counts() -> None:
    rows = torch.zeros(6000, 8)
    rows[:5000, 0] = torch.linspace(-1, 1, 5000)
    rows[5000:, 1] = torch.linspace(-10, 10, 1000)
    assert effective_rank(rows[:5000]) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(rows) > 1.3
