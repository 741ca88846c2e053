"""Public SAEs of SAELens' registry, from a mirror laid out as the hub is, with weights of our own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from husai_core import assets
from husai_core.errors import MissingAssets, UserError
from husai_core.importers import registry
from husai_core.importers.imported import Imported
from husai_core.saes.sae import SAE
from tests.husai_core.kinds.stress_job import run

BEHIND = "the environment is behind requirements.lock"
directory = pytest.importorskip("sae_lens.loading.pretrained_saes_directory", reason=BEHIND)
loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders", reason=BEHIND)
D, N = 8, 16
X = torch.randn(50, D, generator=torch.Generator().manual_seed(1))
GPT2 = "gpt2-small-res-jb/blocks.8.hook_resid_pre"


def weights(*names: str) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,), "threshold": (N,)}
    return {name: torch.randn(*shapes[name], generator=source).abs() - 0.3 for name in names}


W = weights("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
SCALE = 2.0


def of_saelens(folder: Path) -> None:
    cfg = {"architecture": "standard", "d_in": D, "d_sae": N, "dtype": "torch.float32", "hook_point": "blocks.8.hook"}
    cfg |= {"model_name": "gpt2-small", "lr": 4e-4, "training_tokens": 300, "train_batch_size_tokens": 10}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file({name: W[name] for name in W if name != "threshold"}, folder / "sae_weights.safetensors")


def of_dictionary_learning(folder: Path) -> None:
    trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": D, "dict_size": N, "k": 3, "layer": 2, "lm_name": "m"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    state = {"encoder.weight": W["W_enc"].T, "decoder.weight": W["W_dec"].T, "encoder.bias": W["b_enc"]}
    torch.save(state | {"b_dec": W["b_dec"]}, folder / "ae.pt")


def of_llama_scope(folder: Path) -> None:
    said = {"d_model": D, "d_sae": N, "jump_relu_threshold": 0.5, "hook_point_in": "blocks.0.hook_resid_post"}
    said |= {"dataset_average_activation_norm": {"in": D**0.5}}
    (folder / "hyperparams.json").write_text(json.dumps(said))
    (folder / "checkpoints").mkdir()
    state = {"encoder.weight": W["W_enc"].T, "decoder.weight": W["W_dec"].T, "encoder.bias": W["b_enc"]}
    state = {name: value.contiguous() for name, value in state.items()} | {"decoder.bias": W["b_dec"]}
    save_file(state, folder / "checkpoints/final.safetensors")


def of_gemma_3(folder: Path) -> None:
    state = {"w_enc": W["W_enc"], "w_dec": W["W_dec"], "b_enc": W["b_enc"], "b_dec": W["b_dec"]}
    save_file(state | {"threshold": W["threshold"]}, folder / "params.safetensors")


def relu(x: Tensor) -> Tensor:
    return (((x - W["b_dec"]) @ W["W_enc"]) + W["b_enc"]).relu()


def topk(x: Tensor) -> Tensor:
    z = relu(x)
    return torch.where(z >= z.topk(3).values[:, -1:], z, 0.0)


def jumprelu(x: Tensor) -> Tensor:
    z = x @ W["W_enc"] + W["b_enc"]
    return z.relu() * (z > W["threshold"])


Layout = tuple[str, Callable[[Path], None], Callable[[Tensor], Tensor], str]
LAYOUTS: dict[str, Layout] = {
    "sae_lens": (GPT2, of_saelens, relu, "blocks.8.hook"),
    "dictionary_learning_1": (
        "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109/blocks.12.hook_resid_post__trainer_0",
        of_dictionary_learning,
        topk,
        "blocks.2.hook_resid_post",
    ),
    "gemma_3": (
        "gemma-scope-2-1b-pt-res/layer_13_width_16k_l0_small",
        of_gemma_3,
        jumprelu,
        "blocks.13.hook_resid_post",
    ),
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror, beside an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HUSAI_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.delenv("HUSAI_ALLOW_DOWNLOAD", raising=False)
    return tmp_path / "mirror"


def mirrored(mirror: Path, name: str, write: Callable[[Path], None]) -> None:
    entry = registry.find(name)
    folder = mirror / entry.repository / entry.path
    folder.mkdir(parents=True)
    write(folder)


def read(tmp_path: Path, name: str) -> Imported:
    (tmp_path / "scratch").mkdir()
    (thing,) = registry.read([name], tmp_path / "scratch").things
    return thing


@pytest.mark.parametrize("loader", LAYOUTS)
def test_a_public_sae_computes_what_its_weights_say(mirror: Path, tmp_path: Path, loader: str) -> None:
    name, write, latents, hook_name = LAYOUTS[loader]
    mirrored(mirror, name, write)
    thing = read(tmp_path, name)
    sae = thing.value
    assert isinstance(sae, SAE)
    torch.testing.assert_close(sae.encode(X), latents(X))
    torch.testing.assert_close(sae(X), latents(X) @ W["W_dec"] + W["b_dec"])
    assert (thing.source, thing.format, sae.hook_name) == (name, "saelens", hook_name)
    assert sae.provenance["registry"]["release"] == name.partition("/")[0]
    assert {len(digest) for digest in sae.provenance["files"].values()} == {64}


def test_activations_that_were_scaled_are_folded_in(mirror: Path, tmp_path: Path) -> None:
    name = "llama_scope_lxr_8x/l0r_8x"
    mirrored(mirror, name, of_llama_scope)
    sae = read(tmp_path, name).value
    assert isinstance(sae, SAE)
    scale = directory.get_norm_scaling_factor(*name.split("/"))
    z = X * scale @ W["W_enc"] + W["b_enc"]
    torch.testing.assert_close(sae.encode(X), z.relu() * (z > 0.5))
    torch.testing.assert_close(sae(X), (sae.encode(X) @ W["W_dec"] + W["b_dec"]) / scale)


def test_a_missing_sae_blocks_its_job_with_every_file(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingAssets, match="get it with: hf download jbloom/GPT2-Small-SAEs") as error:
        read(tmp_path, GPT2)
    entry = registry.find(GPT2)
    with pytest.raises(MissingAssets) as of_both:
        registry.read([GPT2, "gpt2-small-res-jb/blocks.9.hook_resid_pre"], tmp_path)
    folders = [asset.name.split("/")[-2] for asset in of_both.value.assets]
    assert len(set(folders)) == 2
    assert len(folders) == 4
    names = [f"{entry.repository}:{entry.path}/{file}" for file in ("cfg.json", "sae_weights.safetensors")]
    assert [asset.name for asset in error.value.assets] == names
    assert [assets.is_present(name) for name in names] == [False, False]
    mirrored(mirror, GPT2, of_saelens)
    assert [assets.is_present(name) for name in names] == [True, True]


def test_a_download_that_fails_says_why(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_ALLOW_DOWNLOAD", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cfg\.json of jbloom/.* could not be downloaded: \w+") as error:
        read(tmp_path, GPT2)
    assert not isinstance(error.value, MissingAssets)


def test_damaged_files_are_one_line(mirror: Path, tmp_path: Path) -> None:
    mirrored(mirror, GPT2, of_saelens)
    entry = registry.find(GPT2)
    (mirror / entry.repository / entry.path / "sae_weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"^SAELens cannot read blocks\.8\.hook_resid_pre: [^\n]+$"):
        read(tmp_path, GPT2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2-nothing/x", r"has no release 'gpt2-nothing'; it has gpt2-[^\n]* more$"),
        ("gpt2-small-res-jb/x", r"has no SAE 'x'; it has blocks\.0\.hook_resid_pre, .* and \d+ more$"),
        ("nobody/nothing", "has no release 'nobody'"),
    ],
)
def test_names_outside_the_registry_are_refused(mirror: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, name)


def test_what_reconstructs_nothing_is_refused(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reconstructs nothing"):
        read(tmp_path, "mntss-gemma-2-2b-2.5m-clt-as-per-layer/layer_0")


def test_the_files_of_every_loader_of_the_registry_are_known(mirror: Path) -> None:
    assert loaders.NAMED_PRETRAINED_SAE_LOADERS.keys() == registry.FILES.keys() | registry.REFUSED.keys()


def test_a_public_sae_is_imported_by_its_name(mirror: Path, tmp_path: Path) -> None:
    mirrored(mirror, GPT2, of_saelens)
    result, (created,), _ = run("data.import", tmp_path / "out", {"saelens": [GPT2]})
    (item,) = result.model_dump()["items"]
    assert (item["source"], item["d_sae"], item["hook_name"]) == (GPT2, N, "blocks.8.hook")
    expected: dict[str, Any] = {"architecture": "relu", "tokens": 300, "batch_size": 10, "lr": 4e-4}
    assert expected.items() <= item["claimed_recipe"].items()
    said = json.loads((created.path / "cfg.json").read_bytes())["husai"]
    assert said["claimed"]["registry"]["model"] == "gpt2-small"
    with pytest.raises(UserError, match="either files or `saelens"):
        run("data.import", tmp_path / "nothing", {})
