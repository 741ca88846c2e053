import json
from pathlib import Path

import pytest
import torch

from husai_core.data.modular import pairs
from husai_core.errors import UserError
from husai_core.models import modular

CFG = modular.config(p=7, n_layers=2, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type="LN")


def test_build_depends_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (modular.build(CFG, seed).W_E for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_load_gives_the_saved_network(tmp_path: Path) -> None:
    model, tokens = modular.build(CFG, 3), pairs(7).tokens
    modular.save(tmp_path, model, CFG)
    assert torch.equal(modular.load(tmp_path)(tokens), model(tokens))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    modular.save(tmp_path, modular.build(CFG, 3), CFG)
    (tmp_path / "cfg.json").write_text(json.dumps(CFG | {"d_mlp": 64}))
    with pytest.raises(UserError, match="do not fit"):
        modular.load(tmp_path)


@pytest.mark.parametrize("position", ["answer", "first_operand"])
def test_activations_equal_those_of_the_whole_forward_pass(position: str) -> None:
    model, tokens = modular.build(CFG, 0), pairs(7).tokens
    names = ["hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]
    read = modular.activations(model, tokens, names, position, batch_size=20)
    _, cache = model.run_with_cache(tokens)
    for name in names:
        whole = cache[name][:, modular.POSITIONS[position]]
        assert torch.allclose(read[name], whole, atol=1e-6), name


def test_the_forward_pass_ends_at_the_hooked_layer() -> None:
    model, reached = modular.build(CFG, 0), []
    model.blocks[1].register_forward_hook(lambda *_: reached.append(1))
    modular.activations(model, pairs(7).tokens, ["blocks.0.hook_resid_post"], "answer")
    assert not reached
    modular.activations(model, pairs(7).tokens, ["blocks.1.hook_resid_pre"], "answer")
    assert reached


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.9.hook_resid_post", "has no hook"),
        ("blocks.0.attn.hook_pattern", "not one vector per position"),
        ("blocks.0.attn.hook_attn_scores", "not one vector per position"),
        ("blocks.0.hook_q_input", "gives nothing"),
    ],
)
def test_hooks_without_a_vector_per_position_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        modular.activations(modular.build(CFG, 0), pairs(7).tokens, [name], "answer")
    assert name in str(error.value)


def test_a_hook_that_fires_twice_is_refused() -> None:
    model = modular.build(CFG, 0)
    model.blocks[0].register_forward_hook(lambda block, _, out: block.hook_resid_post(out))
    with pytest.raises(UserError, match="more than one vector"):
        modular.activations(model, pairs(7).tokens, ["blocks.0.hook_resid_post"], "answer")
