from typing import Any

import pytest
from pydantic import ValidationError

from husai_core.saes.recipe import Architecture, SAERecipe


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "topk", "k": None},
        {"d_sae": 4},
        {"k": 8, "l1": 0.1},
        {"architecture": "relu"},
        {"architecture": "relu", "l1": 0.1, "k": 8},
        {"d_sae": 8, "k": 9},
        {"k": 8, "k_start": 8},
        {"k": 8, "lr": float("nan")},
        {"k": 8, "unknown": 1},
    ],
)
def test_impossible_recipes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SAERecipe.model_validate(fields)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "switch"])
def test_where_k_is_read_it_has_a_default(architecture: Architecture) -> None:
    assert SAERecipe(architecture=architecture).k == 8


@pytest.mark.parametrize(
    ("recipe", "change", "ignored"),
    [
        ({"k": 8}, {"bandwidth": 0.5}, "bandwidth: not read by a topk SAE"),
        ({"k": 8, "k_aux": 4}, {"architecture": "relu", "l1": 1.0, "k_aux": 8}, "k_aux: not"),
        ({"k": 8}, {"prefixes": (8,), "experts": 4}, "prefixes, experts: not read"),
    ],
)
def test_a_change_that_the_architecture_does_not_read_is_refused(
    recipe: dict[str, object], change: dict[str, object], ignored: str
) -> None:
    with pytest.raises(ValueError, match=ignored):
        SAERecipe.model_validate(recipe).changed(change)


def test_a_change_of_architecture_keeps_what_it_reads() -> None:
    recipe = SAERecipe(k=8, k_aux=4, bandwidth=0.5, lr=1e-3)
    assert recipe.changed({}) == SAERecipe(k=8, k_aux=4, lr=1e-3)
    relu = {"architecture": "relu", "l1": 1.0}
    assert (
        recipe.changed(relu) == recipe.changed(relu | {"k_aux": None}) == SAERecipe.model_validate(relu | {"lr": 1e-3})
    )
    jumprelu = {"architecture": "jumprelu", "target_l0": 8}
    assert recipe.changed(jumprelu).bandwidth == 0.5
    assert recipe.changed(jumprelu) == recipe.changed(jumprelu | {"k": None})
    assert recipe.changed(jumprelu).changed({"architecture": "switch", "k": 4}).k == 4
    assert recipe.unread(["topk", "relu"]) == ["bandwidth"]
    assert SAERecipe(k=8).unread(["jumprelu"]) == []
    assert SAERecipe(k=16).unread(["jumprelu"]) == ["k"]
    assert SAERecipe(architecture="relu", l1=1.0).unread(["topk"]) == ["l1"]


def test_learning_rate_warms_up_holds_and_decays() -> None:
    recipe = SAERecipe(k=8, tokens=1000, batch_size=10, lr=1.0, warmup_fraction=0.1, decay_fraction=0.2)
    rates = [recipe.learning_rate(step) for step in range(recipe.steps)]
    assert rates[:2] == pytest.approx([0.1, 0.2])
    assert rates[20:75] == [1.0] * 55
    assert rates[-1] == pytest.approx(0.05)
    assert min(rates) > 0


def test_the_half_has_the_same_schedules_until_its_own_rate_falls() -> None:
    recipe = SAERecipe(k=8, k_start=2, tokens=1000, batch_size=10, resample_tokens=30)
    half = recipe.halved
    assert (recipe.half_from, recipe.half_steps, half.steps) == (40, 50, 50)
    for step in range(half.steps):
        assert half.k_at(step) == recipe.k_at(step)
        assert half.resamples_after(step + 1) == recipe.resamples_after(step + 1)
        assert (half.learning_rate(step) == recipe.learning_rate(step)) == (step <= recipe.half_from)
    assert half.learning_rate(49) == pytest.approx(recipe.lr / 10)
    assert (recipe.k_at(0), recipe.k_at(19), recipe.k_at(20)) == (2, 7, 8)
    assert [step for step in range(101) if recipe.resamples_after(step)] == list(range(0, 21, 3))
    relu = SAERecipe(architecture="relu", l1=1.0, tokens=1000, batch_size=10)
    assert [relu.halved.sparsity_weight(step) for step in range(50)] == [relu.sparsity_weight(s) for s in range(50)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"measure_half": False}, "leaves the measurement"),
        ({"decay_fraction": 0.8}, "decay_fraction = 0.8 > 0.5"),
        ({"warmup_fraction": 0.3}, "warmup_fraction = 0.3 > 0.2"),
        ({"k_start": 2, "k_rise_fraction": 0.5}, "k_rise_fraction = 0.5 > 0.2"),
        ({"resample_tokens": 100, "resample_fraction": 0.5}, "resample_fraction = 0.5 > 0.2"),
        ({"tokens": 10}, "one step"),
        ({"k_rise_fraction": 0.5, "resample_fraction": 0.5, "sparsity_warmup_fraction": 0.5}, None),
        ({"decay_fraction": 0.5}, None),
    ],
)
def test_a_recipe_without_a_half_says_why(change: dict[str, object], reason: str | None) -> None:
    said = SAERecipe.model_validate({"tokens": 1000, "batch_size": 10, **change}).why_no_half
    assert said is reason is None or (said is not None and reason is not None and reason in said)


def test_steps_cover_all_tokens() -> None:
    assert SAERecipe(k=8, tokens=1001, batch_size=10).steps == 101


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "jumprelu"}, "a jumprelu SAE needs target_l0"),
        ({"l1": 3}, "l1 is not read by topk, whose sparsity is k"),
        ({"architecture": "relu", "l1": 3, "k": 2}, "k is not read by relu"),
        ({"d_sae": 128, "k": 1000}, "k = 1000 is larger than d_sae = 128"),
        ({"architecture": "switch", "d_sae": 128, "k": 17}, "k = 17 is larger than d_sae / experts = 16"),
    ],
)
def test_what_does_not_fit_the_sparsity_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAERecipe.model_validate(fields)
