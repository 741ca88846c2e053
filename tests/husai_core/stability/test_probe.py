from __future__ import annotations

import torch

from husai_core.stability.probe import fit, over_classes


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


def test_fewer_rows_than_features_give_the_same_probe_as_the_other_way_to_solve_it() -> None:
    source = torch.Generator().manual_seed(3)
    label, features = torch.arange(40) % 2, torch.randn(40, 60, generator=source)
    wide = fit((features, label), (features, label), 2)
    assert wide.weights.shape == (60, 2)
    centred, target = features.double() - features.double().mean(0), torch.nn.functional.one_hot(label, 2).double()
    wanted = target - target.mean(0)
    gram = centred.T @ centred / 40
    solutions = [
        torch.linalg.solve(gram + penalty * gram.trace() / 60 * torch.eye(60), centred.T @ wanted / 40)
        for penalty in (10.0**exponent for exponent in range(-8, 3))
    ]
    assert min(float((wide.weights - solution).abs().max()) for solution in solutions) < 1e-6


def test_a_mean_over_classes_does_not_count_their_rows() -> None:
    label = torch.tensor([0] * 80 + [1] * 20 + [2] * 3)
    right = torch.cat([torch.ones(80), torch.zeros(20), torch.ones(3)]).double()
    assert over_classes(right, label) == (0.5, 0.0)
    mixed = torch.cat([torch.tensor([0.0, 1.0]).repeat(40), torch.zeros(23)]).double()
    assert over_classes(mixed, label) == (0.25, 0.25 / 80 / 4)
    assert over_classes(right[:5], label[:5])[0] == 1.0
