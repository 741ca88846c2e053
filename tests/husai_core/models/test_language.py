from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from husai_core.data.text import TextFile
from husai_core.errors import MissingAssets, UserError, is_host_fault
from husai_core.models import language
from husai_core.models.language import LanguageModel
from tests.husai_core.models import tiny_language


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(directory: Path) -> LanguageModel:
    return language.load(directory)


def test_activations_equal_the_hidden_states_of_the_original(directory: Path, model: LanguageModel) -> None:
    tokens = torch.randint(256, (3, 20))
    original = AutoModelForCausalLM.from_pretrained(directory).eval()
    layer, outputs = original.gpt_neox.layers[1], dict[str, torch.Tensor]()
    layer.mlp.register_forward_hook(lambda _, __, out: outputs.update(mlp=out))
    layer.attention.register_forward_hook(lambda _, __, out: outputs.update(attention=out[0]))
    with torch.no_grad():
        states = original(tokens, output_hidden_states=True).hidden_states
    names = {f"blocks.{i}.hook_resid_post": states[i + 1] for i in range(2)}  # behind the last is a LayerNorm
    names |= {"hook_embed": states[0], "blocks.1.hook_resid_pre": states[1]}
    names |= {"blocks.1.hook_mlp_out": outputs["mlp"], "blocks.1.hook_attn_out": outputs["attention"]}
    output = model.activations(tokens, list(names))
    for name, expected in names.items():
        assert torch.allclose(output[name], expected, atol=1e-5), name
        assert expected.std() > 0.1, name


def test_the_forward_pass_ends_at_the_last_hook(model: LanguageModel) -> None:
    reached = list[int]()
    layers = model.bridge.original_model.gpt_neox.layers
    handles = [layer.register_forward_hook(lambda *_, i=i: reached.append(i)) for i, layer in enumerate(layers)]
    model.activations(torch.zeros(1, 4, dtype=torch.int64), ["blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out"])
    for handle in handles:
        handle.remove()
    assert reached == [0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.9.hook_resid_post", "has no hook"),
        ("blocks.0.attn.hook_pattern", "not one vector per position"),
        ("blocks.0.attn.hook_attn_scores", "not one vector per position"),
    ],
)
def test_hooks_without_a_vector_per_position_are_refused(model: LanguageModel, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        model.activations(torch.zeros(1, 4, dtype=torch.int64), [name])
    assert name in str(error.value)


def test_documents_become_windows_that_start_with_the_special_token(model: LanguageModel) -> None:
    documents = [TextFile("a.txt", tiny_language.TEXT), TextFile("b.txt", "the fox<e>the dog")]
    output = model.sequences(documents, 16)
    assert output.tokens.shape[1] == 16
    assert set(output.tokens[:, 0].tolist()) == {0}
    assert (
        model.tokenizer.decode(output.tokens[output.document == 0][output.is_text[output.document == 0]])
        == tiny_language.TEXT
    )
    last = output.tokens[output.document == 1][0]
    assert model.tokenizer.decode(last[output.is_text[-1]]) == "the foxthe dog"  # written as text, it is special too


def test_a_context_beyond_the_model_is_refused(model: LanguageModel) -> None:
    with pytest.raises(UserError, match="33 tokens is more than the 32"):
        model.sequences([TextFile("a.txt", "the")], 33)


def test_the_digest_names_the_weights(directory: Path, model: LanguageModel, tmp_path: Path) -> None:
    tiny_language.write(tmp_path / "same")
    tiny_language.write(tmp_path / "other", n_layers=2)
    assert language.load(tmp_path / "same").digest == model.digest != language.load(tmp_path / "other").digest
    assert model.untrained(0).digest not in (model.digest, model.untrained(1).digest)
    config = tmp_path / "same/tokenizer_config.json"
    config.write_text(config.read_text() + "\n")
    changed = language.load(tmp_path / "same")
    assert changed.digest == model.digest
    assert changed.tokenizer_digest != model.tokenizer_digest


def test_weights_are_named_alike_in_one_file_and_in_shards(directory: Path, tmp_path: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    for place, names in enumerate((sorted(tensors)[:5], sorted(tensors)[5:])):
        save_file({name: tensors[name] for name in names}, tmp_path / f"model-0000{place + 1}-of-00002.safetensors")
    assert language.weights_digest(tmp_path) == language.weights_digest(directory)
    tensors[min(tensors)].view(-1)[0] += 1
    save_file(tensors, tmp_path / "model-00001-of-00002.safetensors")
    assert language.weights_digest(tmp_path) != language.weights_digest(directory)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "neither a built-in model"),
        ("two words", "neither a built-in model"),
        ("../etc", "import it with `husai import ../etc`"),
        ("/data/my_model", "import it with `husai import /data/my_model`"),
        ("./my_model", "looks like a folder"),
        ("a/b/c", "looks like a folder"),
    ],
)
def test_names_that_are_no_id_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        language.find(name)


def test_an_absent_model_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUSAI_ALLOW_DOWNLOAD", raising=False)
    with pytest.raises(MissingAssets, match="hf download nobody/nothing") as error:
        language.find("nobody/nothing")
    assert [asset.name for asset in error.value.assets] == ["nobody/nothing"]
    assert "hf download nobody/nothing" in error.value.assets[0].how
    assert r"missing: config.json, tokenizer.json, *.safetensors" in str(error.value)


def test_a_download_that_fails_is_an_error_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_ALLOW_DOWNLOAD", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the model nobody/nothing could not be downloaded: \w+") as error:
        language.find("nobody/nothing")
    assert not isinstance(error.value, MissingAssets)


def test_a_directory_without_a_model_is_told(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(UserError, match=r"config.json, tokenizer.json"):
        language.load(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        language.load(tmp_path)


def test_a_model_that_its_disk_does_not_give_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/proc/self/mem")  # nothing is mapped at its start: EIO
    with pytest.raises(OSError, match="Input/output error") as failed:
        language.check(tmp_path)
    assert is_host_fault(failed.value)
