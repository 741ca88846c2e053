import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from husai_core.errors import UserError
from husai_core.saes import checkpoint
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import PARAMETERS, SAE

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))


def sae(d_out: int = 6, **fields: Any) -> SAE:
    source = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (6, 12), "b_enc": (12,), "W_dec": (12, d_out), "b_dec": (d_out,)}
    weights: dict[str, Any] = {name: torch.randn(shape, generator=source) for name, shape in shapes.items()}
    return SAE(**(weights | {"architecture": "topk", "k": 3, "hook_name": "blocks.0.hook_resid_post"} | fields))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


OTHER_SIDE: dict[str, Any] = {"d_out": 4, "transcoder": True, "apply_b_dec_to_input": False}
GATED = {"b_gate": drawn(12), "r_mag": drawn(12) / 2, "b_mag": -drawn(12)}
ROUTER = {"W_router": drawn(6, 3), "b_router": drawn(6)}
KINDS: dict[str, dict[str, Any]] = {
    "topk": {},
    "standard": {"architecture": "relu", "k": None},
    "jumprelu": {"architecture": "jumprelu", "k": None, "threshold": torch.full((12,), 0.7)},
    "husai_signed_topk": {"relu_after_topk": False, "apply_b_dec_to_input": False},
    "husai_topk_transcoder": OTHER_SIDE,
    "gated": {"architecture": "gated", "k": None, "b_enc": None} | GATED,
    "husai_switch": {"architecture": "switch", "k": 2} | ROUTER,
    "transcoder": OTHER_SIDE | {"architecture": "relu", "k": None},
    "jumprelu_transcoder": OTHER_SIDE | {"architecture": "jumprelu", "k": None, "threshold": torch.full((12,), 0.7)},
    "husai_gated_transcoder": OTHER_SIDE | {"architecture": "gated", "k": None, "b_enc": None} | GATED,
    "husai_switch_transcoder": OTHER_SIDE | {"architecture": "switch", "k": 2} | ROUTER,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_saved_sae_loads_as_the_same_function(name: str, tmp_path: Path) -> None:
    original = sae(**KINDS[name])
    checkpoint.save(original, tmp_path, {"seed": 3})
    loaded = checkpoint.load(tmp_path)
    assert torch.equal(loaded(X), original(X))
    assert (loaded.hook_name, loaded.provenance) == (original.hook_name, {"seed": 3})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["dtype"], cfg.get("d_out")) == (
        name,
        "float32",
        4 if original.transcoder else None,
    )
    assert set(load_file(tmp_path / "sae_weights.safetensors")) == set(PARAMETERS[original.architecture])
    assert checkpoint.architecture(loaded) == name


def test_the_half_lies_beside_the_whole(tmp_path: Path) -> None:
    half = sae(k=2, provenance={"seed": 3, "recipe": "half"})
    checkpoint.save(sae(), tmp_path, {"seed": 3}, half)
    loaded = checkpoint.load_half(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded(X), half(X))
    assert loaded.provenance == half.provenance
    assert checkpoint.load(tmp_path).provenance == {"seed": 3}
    assert checkpoint.load_half(tmp_path / "half") is None


def test_topk_checkpoints_compute_what_the_published_formula_says(tmp_path: Path) -> None:
    checkpoint.save(sae(), tmp_path, {})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    w = load_file(tmp_path / "sae_weights.safetensors")
    assert cfg["apply_b_dec_to_input"]
    assert not cfg["rescale_acts_by_decoder_norm"]
    z = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = torch.where(z >= z.topk(cfg["k"]).values[:, -1:], z, 0.0).relu()
    torch.testing.assert_close(checkpoint.load(tmp_path)(X), f @ w["W_dec"] + w["b_dec"])


def test_signed_topk_keeps_negative_latents() -> None:
    signed = sae(relu_after_topk=False, k=12)
    assert (signed.encode(X) < 0).any()
    assert not (sae(k=12).encode(X) < 0).any()


def test_bytes_depend_on_the_arguments_alone(tmp_path: Path) -> None:
    def digests(name: str, provenance: dict[str, Any]) -> list[str]:
        directory = tmp_path / name
        directory.mkdir()
        checkpoint.save(sae(), directory, provenance)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())]

    first = digests("a", {"seed": 1, "position": "answer"})
    assert first == digests("b", {"position": "answer", "seed": 1})
    assert first != digests("c", {"seed": 2, "position": "answer"})


def test_decoder_norm_rescaling_of_saelens_is_folded(tmp_path: Path) -> None:
    original = sae()
    checkpoint.save(original, tmp_path, {})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"rescale_acts_by_decoder_norm": True}))
    loaded = checkpoint.load(tmp_path)
    norms = original.W_dec.norm(dim=-1)
    z = ((X - original.b_dec) @ original.W_enc + original.b_enc) * norms
    f = torch.where(z >= z.topk(3).values[:, -1:], z, 0.0).relu()
    torch.testing.assert_close(loaded(X), (f / norms) @ original.W_dec + original.b_dec)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"architecture": "skip_transcoder"}, "architecture 'skip_transcoder'"),
        ({"architecture": "jumprelu"}, "no tensor threshold"),
        ({"normalize_activations": "layer_norm"}, "'layer_norm' differs from row to row"),
        ({"normalize_activations": "expected_average_only_in"}, "must be folded into the weights first"),
        ({"k": 13}, "k = 13"),
        ({"k": None}, "lacks k"),
    ],
)
def test_what_cannot_be_run_is_refused(cfg: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint.save(sae(), tmp_path, {})
    known = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(known | cfg))
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path)


def test_a_transcoder_with_a_pre_bias_is_refused() -> None:
    with pytest.raises(UserError, match="belongs to its output"):
        checkpoint.check(sae(transcoder=True))


def test_a_missing_architecture_is_not_taken_for_relu(tmp_path: Path) -> None:
    checkpoint.save(sae(), tmp_path, {})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    del cfg["architecture"]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(UserError, match="architecture None"):
        checkpoint.load(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    checkpoint.save(sae(), tmp_path, {})
    path = tmp_path / "sae_weights.safetensors"
    good, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(good[:-8])
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(tmp_path)
    save_file(tensors | {"b_enc": torch.zeros(11)}, path)
    with pytest.raises(UserError, match="b_enc has shape"):
        checkpoint.load(tmp_path)
    save_file(tensors | {"b_enc": torch.full((12,), torch.nan)}, path)
    with pytest.raises(UserError, match="b_enc contains NaN"):
        checkpoint.load(tmp_path)
    with pytest.raises(UserError, match="threshold contains NaN"):
        checkpoint.check(sae(**KINDS["jumprelu"] | {"threshold": torch.full((12,), torch.inf)}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"W_router": drawn(6, 5)}, "12 latents cannot be shared equally by 5 experts"),
        ({"W_router": drawn(5, 3)}, "W_router has shape"),
        ({"b_router": drawn(5)}, "b_router has shape"),
        ({"b_router": torch.full((6,), torch.nan)}, "b_router contains NaN"),
        ({"k": 5}, "k = 5 is impossible with 4 latents"),
        ({"k": None}, "lacks k, its active latents per row"),
    ],
)
def test_a_switch_sae_that_cannot_route_is_refused(fields: dict[str, Any], message: str) -> None:
    checkpoint.check(sae(**KINDS["husai_switch"]))
    with pytest.raises(UserError, match=message):
        checkpoint.check(sae(**KINDS["husai_switch"] | fields))


@pytest.mark.parametrize("name", GATED)
def test_a_gated_sae_with_damaged_tensors_is_refused(name: str) -> None:
    checkpoint.check(sae(**KINDS["gated"]))
    with pytest.raises(UserError, match=f"{name} has shape"):
        checkpoint.check(sae(**KINDS["gated"] | {name: drawn(11)}))
    with pytest.raises(UserError, match=f"{name} contains NaN"):
        checkpoint.check(sae(**KINDS["gated"] | {name: torch.full((12,), torch.inf)}))


def test_tensors_of_another_architecture_are_refused(tmp_path: Path) -> None:
    checkpoint.save(sae(), tmp_path, {})
    path = tmp_path / "sae_weights.safetensors"
    save_file(load_file(path) | {"scaling_factor": torch.full((12,), 2.0)}, path)
    with pytest.raises(UserError, match="'scaling_factor', which a topk SAE does not have"):
        checkpoint.load(tmp_path)
    save_file(load_file(path) | {"scaling_factor": torch.ones(12)}, path)  # SAELens once wrote ones
    assert torch.equal(checkpoint.load(tmp_path).W_enc, sae().W_enc)


def rewritten(directory: Path, change: dict[str, Any], *without: str, **architecture: Any) -> SAE:
    """What is loaded of a checkpoint whose `cfg.json` is changed."""
    checkpoint.save(sae(**architecture), directory, {})
    cfg = json.loads((directory / "cfg.json").read_bytes()) | change
    (directory / "cfg.json").write_text(json.dumps({name: cfg[name] for name in cfg if name not in without}))
    return checkpoint.load(directory)


BEFORE_6 = ("metadata", "husai", "reshape_activations", "normalize_activations")


@pytest.mark.parametrize(
    ("said", "hook_name", "reshape"),
    [
        ({"hook_name": "blocks.3.hook_resid_post"}, "blocks.3.hook_resid_post", "none"),
        ({"hook_point": "blocks.3.attn.hook_z"}, "blocks.3.attn.hook_z", "hook_z"),
        ({"hook_name": "h", "normalize_activations": False}, "h", "none"),
        ({"hook_name": "h", "hook_head_index": 2, "scaling_factor": None}, "h", "none"),
    ],
)
def test_a_config_from_before_saelens_6_keeps_its_hook(
    tmp_path: Path, said: dict[str, Any], hook_name: str, reshape: str
) -> None:
    without = [name for name in BEFORE_6 if name not in said]
    loaded = rewritten(tmp_path, said, *without, **KINDS["standard"])
    assert (loaded.hook_name, loaded.reshape_activations) == (hook_name, reshape)
    assert loaded.hook_head_index == said.get("hook_head_index")


def test_a_config_from_before_saelens_6_may_lack_an_architecture_and_nest_k(tmp_path: Path) -> None:
    (tmp_path / "relu").mkdir()
    old = {"hook_name": "h", "activation_fn_str": "relu"}
    assert rewritten(tmp_path / "relu", old, *BEFORE_6, "architecture", **KINDS["standard"]).architecture == "relu"
    old = {"hook_name": "h", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    assert rewritten(tmp_path, old, *BEFORE_6, "k").k == 4
    with pytest.raises(UserError, match="names architecture None"):
        rewritten(tmp_path, {}, "architecture")


def test_no_normalisation_may_be_null(tmp_path: Path) -> None:
    assert rewritten(tmp_path, {"normalize_activations": None, "reshape_activations": None}).k == sae().k
    with pytest.raises(UserError, match="must be folded into the weights first"):
        rewritten(tmp_path, {"normalize_activations": True})
    with pytest.raises(UserError, match="reshape_activations 'hook_q' is unknown"):
        rewritten(tmp_path, {"reshape_activations": "hook_q"})


@pytest.mark.parametrize("head", [None, 3])
def test_reshaping_and_the_head_survive(tmp_path: Path, head: int | None) -> None:
    metadata = {"hook_name": "blocks.0.attn.hook_z", "hook_head_index": head, "sae_lens_version": "6.54.12"}
    loaded = rewritten(tmp_path, {"reshape_activations": "hook_z", "metadata": metadata})
    checkpoint.save(loaded, tmp_path, {})
    cfg = json.loads((tmp_path / "cfg.json").read_bytes())
    assert (cfg["reshape_activations"], cfg["metadata"]["hook_head_index"]) == ("hook_z", head)
    again = checkpoint.load(tmp_path)
    assert (again.reshape_activations, again.hook_head_index) == ("hook_z", head)


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka_batchtopk"])
def test_the_form_for_training_is_told_how_to_be_saved_for_inference(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"TrainingSAE\.load_from_disk\(FOLDER\)\.save_inference_model"):
        rewritten(tmp_path, {"architecture": name})


def test_recipe_comes_back_from_the_checkpoint(tmp_path: Path) -> None:
    recipe = SAERecipe(d_sae=12, k=3)
    checkpoint.save(sae(), tmp_path, {"recipe": recipe.model_dump(mode="json")})
    assert checkpoint.recipe(checkpoint.load(tmp_path)) == recipe
    with pytest.raises(UserError, match="does not say how it was trained"):
        checkpoint.recipe(sae())
