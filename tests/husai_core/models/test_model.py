"""What all models have in common: hooks, activations, losses and untrained copies."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from husai_core.data.modular import POSITIONS, pairs
from husai_core.data.text import TextFile
from husai_core.errors import UserError
from husai_core.models import language, modular
from husai_core.models.model import Model
from tests.husai_core.models import tiny_language

CFG = modular.config(p=7, n_layers=2, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type="LN")
HOOKS = {
    "hook_embed": 16,
    "blocks.0.hook_resid_post": 16,
    "blocks.1.mlp.hook_post": 32,
    "blocks.1.attn.hook_z": 16,
    "blocks.0.attn.hook_q": 16,
}
TINY_TOKENS = torch.randint(290, (5, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(directory: Path) -> dict[str, tuple[Model, Tensor]]:
    """Each kind of model, and sequences that it reads."""
    network = modular.ModularNetwork(modular.build(CFG, 0))
    return {"modular": (network, pairs(7).tokens), "language": (language.load(directory), TINY_TOKENS)}


@pytest.fixture(params=["modular", "language"])
def model_and_tokens(request: pytest.FixtureRequest, models: dict[str, tuple[Model, Tensor]]) -> tuple[Model, Tensor]:
    return models[request.param]


def test_hooks_are_listed_with_their_widths(model_and_tokens: tuple[Model, Tensor]) -> None:
    model, tokens = model_and_tokens
    assert HOOKS.items() <= model.hooks.items()
    assert not {"blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"} & model.hooks.keys()
    assert (model.d_model, model.n_layers) == (16, 2 if model.n_ctx == 7 else 3)
    activations = model.activations(tokens, list(HOOKS))
    assert {name: tuple(value.shape) for name, value in activations.items()} == {
        name: (*tokens.shape, width) for name, width in HOOKS.items()
    }


def test_heads_lie_side_by_side(models: dict[str, tuple[Model, Tensor]]) -> None:
    network, tokens = models["modular"]
    assert isinstance(network, modular.ModularNetwork)
    name = "blocks.1.attn.hook_z"
    _, cache = network.network.run_with_cache(tokens)
    z = network.activations(tokens, [name])[name]
    assert torch.allclose(z, torch.cat([cache[name][:, :, head] for head in range(2)], -1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("blocks.9.hook_resid_post", "blocks.1.hook_resid_post"),
        ("blocks.0.hook_redis_post", "blocks.0.hook_resid_post"),
        ("resid_post", "blocks.0.hook_resid_post"),
        ("model.layers.3", "in each of its"),
    ],
)
def test_a_misspelt_hook_is_refused_with_the_nearest(
    model_and_tokens: tuple[Model, Tensor], name: str, nearest: str
) -> None:
    model, tokens = model_and_tokens
    for use in (lambda: model.activations(tokens, [name]), lambda: model.loss_with(tokens, name, lambda x: x)):
        with pytest.raises(UserError, match=f"no hook '{name}'") as error:
            use()
        assert nearest in str(error.value)
        assert f"{model.n_layers} layers" in str(error.value)


def test_the_loss_changes_with_what_is_replaced_and_with_nothing_else(model_and_tokens: tuple[Model, Tensor]) -> None:
    model, tokens = model_and_tokens
    loss = model.loss(tokens)
    for name, width in HOOKS.items():
        shapes = list[tuple[int, ...]]()

        def same(values: Tensor, shapes: list[tuple[int, ...]] = shapes) -> Tensor:
            shapes.append(tuple(values.shape))
            return values.clone()

        assert torch.allclose(model.loss_with(tokens, name, same), loss, atol=1e-6), name
        assert [shape[2] for shape in shapes] == [width]
        assert not torch.allclose(model.loss_with(tokens, name, torch.zeros_like), loss, atol=1e-4), name
    assert torch.equal(model.loss(tokens), loss)


def test_losses_are_those_of_each_next_token(directory: Path, models: dict[str, tuple[Model, Tensor]]) -> None:
    model, tokens = models["language"]
    with torch.no_grad():
        original = AutoModelForCausalLM.from_pretrained(directory).eval()(tokens, labels=tokens)
    assert model.loss(tokens).shape == (5, 11)
    assert float(model.loss(tokens).mean()) == pytest.approx(float(original.loss), abs=1e-5)


@pytest.mark.parametrize("position", ["answer", "answer_token"])
def test_losses_of_networks_are_those_of_the_sum(position: str) -> None:
    network, data = modular.build(CFG, 0), pairs(7)
    wanted = modular.logits(network, data.tokens, position).log_softmax(1)[torch.arange(49), data.label]
    loss = modular.ModularNetwork(network, position).loss(data.tokens)
    assert torch.allclose(loss[:, 0], -wanted, atol=1e-5)


def test_untrained_copies_depend_on_the_seed_and_may_keep_embeddings(model_and_tokens: tuple[Model, Tensor]) -> None:
    model, tokens = model_and_tokens
    state, names = torch.random.get_rng_state(), ["hook_embed", "blocks.1.hook_resid_post"]
    copies = [model.untrained(seed, keep) for seed, keep in ((0, False), (0, False), (1, False), (1, True))]
    assert torch.equal(torch.random.get_rng_state(), state)
    trained, first, again, other, kept = (copy.activations(tokens, names) for copy in (model, *copies))
    for name in names:
        assert torch.equal(first[name], again[name])
        assert not torch.allclose(first[name], other[name], atol=1e-3)
    assert torch.equal(kept["hook_embed"], trained["hook_embed"])
    assert not torch.allclose(kept[names[1]], trained[names[1]], atol=1e-3)
    assert copies[0].hooks == model.hooks


def test_a_place_is_read_without_the_tokens_behind_it(models: dict[str, tuple[Model, Tensor]]) -> None:
    model, tokens = models["modular"]
    changed = tokens.clone()
    changed[:, POSITIONS["answer"] + 1 :] = 0
    for name, rows in model.read(tokens, list(HOOKS), POSITIONS["answer"], batch_size=10).items():
        assert torch.equal(rows, model.read(changed, [name], POSITIONS["answer"])[name])
        assert rows.shape == (49, HOOKS[name])


@pytest.mark.parametrize(
    ("bos", "choice", "first"), [(True, None, True), (True, False, False), (False, None, False), (False, False, False)]
)
def test_sequences_begin_as_the_tokeniser_or_the_choice_says(
    tmp_path: Path, bos: bool, choice: bool | None, first: bool
) -> None:
    model = language.load(tiny_language.write(tmp_path, bos=bos))
    sequences = model.sequences([TextFile("a.txt", tiny_language.TEXT)], 16, choice)
    ids = model.tokenizer.encode(tiny_language.TEXT, add_special_tokens=False)
    assert model.prepends_bos(choice) == first
    assert sequences.tokens[0].tolist() == ([0] if first else []) + ids[: 15 if first else 16]
    original = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        states = original(sequences.tokens, output_hidden_states=True).hidden_states[2]
    name = "blocks.1.hook_resid_post"
    assert torch.allclose(model.activations(sequences.tokens, [name])[name], states, atol=1e-5)


def test_a_token_that_the_tokeniser_lacks_cannot_be_prepended(tmp_path: Path) -> None:
    model = language.load(tiny_language.write(tmp_path, bos=False))
    with pytest.raises(UserError, match="no beginning-of-sequence token"):
        model.sequences([TextFile("a.txt", "the fox")], 16, prepend_bos=True)
