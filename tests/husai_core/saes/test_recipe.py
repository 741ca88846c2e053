import pytest
from pydantic import ValidationError

from husai_core.saes.recipe import SAERecipe


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "topk"},
        {"k": 8, "l1": 0.1},
        {"architecture": "relu"},
        {"architecture": "relu", "l1": 0.1, "k": 8},
        {"d_sae": 8, "k": 9},
        {"k": 8, "lr": float("nan")},
        {"k": 8, "unknown": 1},
    ],
)
def test_impossible_recipes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SAERecipe.model_validate(fields)


def test_learning_rate_warms_up_holds_and_decays() -> None:
    recipe = SAERecipe(k=8, tokens=1000, batch_size=10, lr=1.0, warmup_fraction=0.1, decay_fraction=0.2)
    rates = [recipe.learning_rate(step) for step in range(recipe.steps)]
    assert rates[:2] == pytest.approx([0.1, 0.2])
    assert rates[20:75] == [1.0] * 55
    assert rates[-1] == pytest.approx(0.05)
    assert min(rates) > 0


def test_steps_cover_all_tokens() -> None:
    assert SAERecipe(k=8, tokens=1001, batch_size=10).steps == 101
