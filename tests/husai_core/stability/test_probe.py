from __future__ import annotations

import torch

from husai_core.stability.probe import fit


def test_finds_a_linear_answer_and_nothing_in_noise() -> None:
    source = torch.Generator().manual_seed(0)
    label = torch.randint(5, (900,), generator=source)
    signal = torch.nn.functional.one_hot(label, 5).float() @ torch.randn(5, 20, generator=source)
    features = signal + 0.3 * torch.randn(900, 20, generator=source) + 7
    noise = torch.randn(900, 20, generator=source)
    cut = slice(0, 500), slice(500, 700), slice(700, 900)
    for rows, low, high in ((features, 0.97, 1.0), (noise, 0.0, 0.32)):
        train, validation, test = ((rows[rows_used], label[rows_used]) for rows_used in cut)
        assert low <= fit(train, validation, 5).accuracy(*test) <= high


def test_rare_classes_are_not_given_up() -> None:
    """Ten classes on a circle, every other one rare: without equal weights the common ones take their neighbours."""
    label = torch.cat([torch.full((200 if c % 2 else 10,), c) for c in range(10)])
    angle = label * (2 * torch.pi / 10) + 0.05 * torch.randn(len(label), generator=torch.Generator().manual_seed(2))
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    probe = fit((features[::2], label[::2]), (features[1::2], label[1::2]), 10)
    assert all(probe.accuracy(features[label == c], label[label == c]) > 0.95 for c in range(10))


def test_more_features_than_rows_and_constant_features() -> None:
    source = torch.Generator().manual_seed(1)
    label = torch.arange(60) % 3
    features = torch.cat([torch.randn(60, 100, generator=source), torch.zeros(60, 5)], dim=1)
    features[:, 0] += 20 * (label == 1)
    features[:, 1] += 20 * (label == 2)
    probe = fit((features[:40], label[:40]), (features[40:50], label[40:50]), 3)
    assert torch.isfinite(probe.weights).all()
    assert probe.accuracy(features[50:], label[50:]) > 0.6
