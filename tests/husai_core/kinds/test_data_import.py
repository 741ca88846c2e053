import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from husai_core.activations import store
from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.models import modular
from husai_core.saes import checkpoint
from husai_core.stability.seed_group import read as read_siblings
from tests.husai_core.kinds.stress_job import artifact_in, network, run, siblings, stress
from tests.husai_core.models import tiny_language

D, N, K = 16, 32, 4
FIXTURES = Path(__file__).parents[1] / "saes/fixtures"
CFG = modular.config(p=13, n_layers=2, d_model=D, n_heads=2, d_mlp=32, act_fn="relu", normalization_type="LN")
X = torch.randn(40, D, generator=torch.Generator().manual_seed(9))


def earlier_sae(**fields: Any) -> dict[str, Any]:
    source = torch.Generator().manual_seed(0)
    state = {
        "encoder.weight": torch.randn(N, D, generator=source),
        "encoder.bias": torch.randn(N, generator=source),
        "decoder.weight": torch.randn(D, N, generator=source),
    }
    return {"sae_state_dict": state, "k": K, "config": {"architecture": "topk"}, "metrics": {"l0": [4.0]}} | fields


def upload(path: Path, **files: Any) -> Artifact:
    """An upload of files whose names are given with `__` for the dot."""
    path.mkdir(parents=True)
    for name, content in files.items():
        target = path / name.replace("__", ".")
        target.write_bytes(content) if isinstance(content, bytes) else torch.save(content, target)
    return Artifact("e" * 64, "upload", path, 0.0)


def imported(tmp_path: Path, *uploads: Artifact, **spec: Any) -> tuple[list[dict[str, Any]], list[Artifact]]:
    result, created, _ = run("data.import", tmp_path / "out", spec, file=list(uploads))
    return [item.model_dump() for item in result.items], created


def test_an_earlier_topk_sae_keeps_its_function(tmp_path: Path) -> None:
    """k largest signed pre-activations, no ReLU, no biases on input and output."""
    content = earlier_sae()
    items, (created,) = imported(
        tmp_path, upload(tmp_path / "in", sae_final__pt=content), hook_name="blocks.1.hook_mlp_out"
    )
    state: dict[str, Tensor] = content["sae_state_dict"]
    z = X @ state["encoder.weight"].T + state["encoder.bias"]
    f = torch.where(z >= z.topk(K).values[:, -1:], z, 0.0)
    loaded = checkpoint.load(created.path)
    torch.testing.assert_close(loaded(X), f @ state["decoder.weight"].T)
    assert torch.equal(loaded.W_dec, state["decoder.weight"].T)
    (item,) = items
    assert (item["what"], item["format"], item["architecture"]) == ("sae", "earlier", "husai_signed_topk")
    assert (item["d_in"], item["d_sae"], item["k"], item["hook_name"]) == (D, N, K, "blocks.1.hook_mlp_out")
    assert loaded.provenance["relu_after_topk"] is False
    assert loaded.provenance["claimed"]["metrics"] == {"l0": [4.0]}


def test_what_a_checkpoint_says_of_its_training_is_only_a_claim(tmp_path: Path) -> None:
    world = {"rows": 400, "n_features": 24, "d_model": 12, "active": 2}
    rows = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": world})[1][0]
    trained = siblings(tmp_path / "saes", rows, (0, 1), tokens=5_000)
    uploads = [Artifact(sae.digest, "upload", sae.path, [0.0]) for sae in trained]
    created = []
    for i, file in enumerate(uploads):
        items, (created_sae,) = imported(tmp_path / f"out{i}", file)
        created.append(created_sae)
        assert len(items) == 1
    original, said = (checkpoint.load(sae.path).provenance for sae in (trained[0], created[0]))
    assert said["claimed"] == original
    assert {said[name] for name in ("seed", "converged", "model_digest", "activations_digest")} == {None}
    assert said["imported"] is True
    halves = [checkpoint.load_half(sae.path) for sae in (trained[0], created[0])]
    assert halves[0] is not None
    assert halves[1] is not None
    assert torch.equal(halves[0].W_dec, halves[1].W_dec)
    assert halves[1].provenance["claimed"] == halves[0].provenance
    assert said.keys().isdisjoint({"recipe", "drift_from_init", "source", "leaks_label"})
    assert imported(tmp_path / "again", uploads[0])[1][0].digest == created[0].digest
    assert said["claimed_seed"] == original["seed"]
    group = read_siblings(created)
    assert (group.imported, group.recipe) == (True, checkpoint.recipe(checkpoint.load(trained[0].path)))


def folder(path: Path, created: Artifact) -> Artifact:
    """An upload of an artifact's files."""
    return upload(path, **{file.name.replace(".", "__"): file.read_bytes() for file in created.path.glob("*.*")})


def test_what_activations_say_of_their_origin_is_only_a_claim(tmp_path: Path) -> None:
    transformer = network(tmp_path / "network")
    (rows,) = run("train.activations", tmp_path / "rows", {"dtype": "float16"}, transformer=[transformer])[1]
    items, (created,) = imported(tmp_path, folder(tmp_path / "in", rows))
    original, stored = store.load(rows.path), store.load(created.path)
    assert torch.equal(stored.rows[:], original.rows[:])
    assert torch.equal(stored.split, original.split)
    assert torch.equal(stored.tokens, original.tokens)
    assert (stored.source, stored.model_digest, stored.p, stored.leaks_label) == ("imported", None, None, False)
    cfg = json.loads((created.path / "cfg.json").read_bytes())
    assert (cfg["dtype"], cfg["claimed"]["model_digest"]) == ("float16", transformer.digest)
    assert "claim" in items[0]["notes"][0]
    saes = siblings(tmp_path / "saes", created, (0, 1), tokens=5_000)
    with pytest.raises(UserError, match="not trained on this transformer"):
        stress("stress.untrained_model", tmp_path, saes=saes, activations=[created], transformer=[transformer])


@pytest.mark.parametrize(
    ("said", "spec", "position", "leaks"),
    [
        ({"leaks_label": True}, {}, "answer", True),
        ({"position": "answer_token"}, {}, "answer_token", True),
        ({"position": "answer_token"}, {"position": "answer"}, "answer", True),
        ({}, {"position": "answer_token"}, "answer_token", True),
        ({}, {"position": "bos"}, "bos", False),
    ],
)
def test_activations_of_the_answer_token_leak_the_label(
    tmp_path: Path, said: dict[str, Any], spec: dict[str, Any], position: str, leaks: bool
) -> None:
    world = {"rows": 40, "n_features": 24, "d_model": 4, "active": 2}
    (rows,) = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": world})[1]
    cfg = json.loads((rows.path / "cfg.json").read_bytes()) | {"position": "answer"} | said
    (rows.path / "cfg.json").write_text(json.dumps(cfg))
    _, (created,) = imported(tmp_path, folder(tmp_path / "in", rows), hook_name="blocks.1.hook_mlp_out", **spec)
    stored = store.load(created.path)
    assert (stored.hook_name, stored.position, stored.leaks_label) == ("blocks.1.hook_mlp_out", position, leaks)


def test_shards_are_imported_in_their_type(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    facts = dict.fromkeys(store.FACTS) | {"hook_name": "h", "position": "all", "source": "language"}
    writer = store.Writer(tmp_path / "made", facts | {"leaks_label": False}, torch.bfloat16, 64 * D)
    rows, split = torch.randn(100, D), torch.arange(100, dtype=torch.uint8) % 3
    writer.add(rows, tokens=torch.zeros(100, 1, dtype=torch.int64), label=torch.full((100,), -1), split=split)
    writer.close()
    assert len(list((tmp_path / "made").iterdir())) == 5
    items, (created,) = imported(
        tmp_path, folder(tmp_path / "in", Artifact("a", "activations", tmp_path / "made", 0.0))
    )
    stored = store.load(created.path)
    assert torch.equal(stored.rows[:], rows.bfloat16().float())
    assert stored.rows.shards[0].dtype == torch.bfloat16
    assert (items[0]["n_rows"], items[0]["format"]) == (100, "husai")


def test_a_reshaped_sae_keeps_its_hook_and_reads_rows_of_all_heads(tmp_path: Path) -> None:
    shapes = {"W_enc": (16, 32), "b_enc": (32,), "W_dec": (32, 16), "b_dec": (16,)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    metadata = {"hook_name": "blocks.1.attn.hook_z", "hook_head_index": None}
    cfg = {"architecture": "standard", "d_in": 16, "reshape_activations": "hook_z", "metadata": metadata}
    save_file(tensors, tmp_path / "weights")
    weights = (tmp_path / "weights").read_bytes()
    file = upload(tmp_path / "in", cfg__json=json.dumps(cfg).encode(), sae_weights__safetensors=weights)
    _, (created,) = imported(tmp_path / "out", file)
    exported = json.loads((created.path / "cfg.json").read_bytes())
    assert exported["reshape_activations"] == "hook_z"
    assert exported["metadata"] | metadata == exported["metadata"]
    model = artifact_in(tiny_language.write(tmp_path / "model"), "transformer")
    spec = {"source": "language", "hook_name": "blocks.1.attn.hook_z", "context": 16, "max_rows": 500}
    (rows,) = run("train.activations", tmp_path / "rows", spec, transformer=[model])[1]
    assert checkpoint.load(created.path)(store.load(rows.path).rows[:]).shape == (500, 16)


def test_an_earlier_relu_sae_is_a_standard_sae(tmp_path: Path) -> None:
    content = earlier_sae(k=None, config={"sae": {"architecture": "relu"}})
    content["model_state_dict"] = content.pop("sae_state_dict")
    items, (created,) = imported(tmp_path, upload(tmp_path / "in", sae__pt=content))
    assert items[0]["architecture"] == "standard"
    assert (checkpoint.load(created.path).encode(X) >= 0).all()


def test_an_earlier_transformer_computes_the_same_and_is_marked_as_leaking(tmp_path: Path) -> None:
    model = modular.build(CFG, 3)
    content = {"model_state_dict": model.state_dict(), "config": CFG, "epoch": 3, "metrics": {"val/accuracy": 1.0}}
    items, (created,) = imported(tmp_path, upload(tmp_path / "in", transformer_best__pt=content))
    tokens = torch.randint(0, 13, (5, 7))
    torch.testing.assert_close(modular.load(created.path)(tokens), model(tokens))
    cfg = modular.read_config(created.path)
    assert (cfg["leaks_label"], cfg["dataset"]["p"], cfg["dataset"]["position"]) == (True, 13, "answer_token")
    assert items[0]["what"] == "transformer"
    assert cfg["leak_test"]["chance"] == 1 / 13


@pytest.mark.parametrize(("position", "leaks"), [("answer", False), ("answer_token", True)])
def test_a_transformer_that_denies_its_leak_is_found_out(tmp_path: Path, position: str, leaks: bool) -> None:
    spec = {"p": 13, "d_model": 32, "d_mlp": 64, "steps": 100, "batch_size": 128, "position": position}
    (trained,) = run("train.transformer", tmp_path / "made", spec | {"leaks_label": leaks})[1]
    cfg = modular.read_config(trained.path) | {"leaks_label": False}
    weights = (trained.path / "model.safetensors").read_bytes()
    files = upload(tmp_path / "in", cfg__json=json.dumps(cfg).encode(), model__safetensors=weights)
    _, (created,) = imported(tmp_path, files)
    said = modular.read_config(created.path)
    assert (said["leaks_label"], said["leak_test"]["passed"], said["imported"]) == (leaks, not leaks, True)


def test_what_a_transformer_says_of_its_training_is_only_a_claim(tmp_path: Path) -> None:
    trained = network(tmp_path / "network")
    items, (created,) = imported(tmp_path, folder(tmp_path / "in", trained))
    said, original = modular.read_config(created.path), modular.read_config(trained.path)
    assert said["claimed"] == original
    assert said["dataset"] == {"p": 13, "train_fraction": None, "seed": None, "position": "answer"}
    assert (created.path / "model.safetensors").read_bytes() == (trained.path / "model.safetensors").read_bytes()
    assert "claim" in items[0]["notes"][0]


def test_a_transformer_inside_an_experiment_config_is_rebuilt(tmp_path: Path) -> None:
    inner = {"n_layers": 2, "d_model": D, "n_heads": 2, "d_mlp": 32, "vocab_size": 17, "max_seq_len": 7}
    content = {
        "model_state_dict": modular.build(CFG, 3).state_dict(),
        "config": {"transformer": inner | {"activation": "relu"}},
    }
    items, _ = imported(tmp_path, upload(tmp_path / "in", t__pt=content))
    assert items[0]["d_in"] == D


def test_a_transformer_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    content = {"model_state_dict": modular.build(CFG, 3).state_dict(), "config": CFG | {"d_mlp": 64}}
    with pytest.raises(UserError, match="do not fit its config"):
        imported(tmp_path, upload(tmp_path / "in", t__pt=content))


def test_earlier_activations_get_a_split_and_their_true_position(tmp_path: Path) -> None:
    meta = {"layer": 1, "position": "answer", "modulus": 113, "shape": [100, D]}
    rows = torch.randn(100, D)
    items, (created,) = imported(
        tmp_path, upload(tmp_path / "in", layer1_answer__pt=rows, layer1_answer__meta__pt=meta)
    )
    loaded = store.load(created.path)
    assert torch.equal(loaded.rows[:], rows)
    assert (loaded.hook_name, loaded.position, loaded.leaks_label) == ("blocks.1.hook_resid_post", "answer_token", True)
    assert [int(loaded.mask(part_name).sum()) for part_name in ("train", "validation", "test")] == [70, 10, 20]
    assert items[0]["n_rows"] == 100


def test_a_saelens_checkpoint_arrives_as_two_uploads_or_as_a_zip(tmp_path: Path) -> None:
    _, (first,) = imported(
        tmp_path / "a", upload(tmp_path / "in", sae__pt=earlier_sae(k=None, config={"architecture": "relu"}))
    )
    parts = {path.name.replace(".", "__"): path.read_bytes() for path in first.path.iterdir()}
    uploads = [upload(tmp_path / name, **{name: data}) for name, data in parts.items()]
    items, (second,) = imported(tmp_path / "b", *uploads, what="sae")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for folder in ("x", "y"):
            for path in first.path.iterdir():
                archive.write(path, f"{folder}/{path.name}")
    both, created = imported(tmp_path / "c", upload(tmp_path / "zip", two__zip=(tmp_path / "two.zip").read_bytes()))
    assert items[0]["format"] == "saelens"
    assert (len(both), len(created)) == (2, 2)
    for again in (second, *created):
        assert torch.equal(checkpoint.load(again.path)(X), checkpoint.load(first.path)(X))


@pytest.mark.parametrize(
    ("layout", "architectures"),
    [
        ("dictionary_learning", ["standard", "standard", "topk", "jumprelu", "gated", "jumprelu", "jumprelu"]),
        ("sparsify", ["topk", "husai_topk_transcoder"]),
    ],
)
def test_what_other_libraries_trained_is_imported(tmp_path: Path, layout: str, architectures: list[str]) -> None:
    file = upload(tmp_path / "in", all__zip=(FIXTURES / f"{layout}.zip").read_bytes())
    items, created = imported(tmp_path / "a", file, format=layout, hook_name="blocks.0.hook_resid_post")
    assert [item["architecture"] for item in items] == architectures
    assert {item["format"] for item in items} == {layout}
    for sae in map(checkpoint.load, [imported_sae.path for imported_sae in created]):
        assert (sae.provenance["layout"], sae.provenance["imported"]) == (layout, True)
        assert sae.provenance["claimed"]["config"]
    with pytest.raises(UserError, match=f"layout {layout}, not saelens"):
        imported(tmp_path / "b", file, format="saelens")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def nan_sae() -> dict[str, Any]:
    content = earlier_sae()
    content["sae_state_dict"]["encoder.bias"][3] = torch.nan
    return content


def misshapen_sae() -> dict[str, Any]:
    content = earlier_sae()
    content["sae_state_dict"]["decoder.weight"] = torch.randn(D + 1, N)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nan_sae(), "contains NaN"),
        (misshapen_sae(), "do not fit together"),
        (earlier_sae(k=N + 1), "k = 33"),
        (earlier_sae(config={"architecture": "gated"}), "'gated' cannot be run"),
        ({"sae_state_dict": {"weight": torch.zeros(3)}}, "neither an SAE nor"),
        ({"a": 1}, "neither sae_state_dict nor"),
        (torch.zeros(100), "tensor of shape"),
        (b"not a checkpoint", "damaged or holds more than plain tensors"),
        (b"", "damaged or holds more than plain tensors"),
    ],
)
def test_bad_files_are_one_clear_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        imported(tmp_path, upload(tmp_path / "in", bad__pt=content))
    assert "\n" not in str(error.value)


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="more than plain tensors"):
        imported(tmp_path, upload(tmp_path / "in", bad__pt={"sae_state_dict": Evil()}))
    assert not (tmp_path / "unpickled").exists()


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = upload(tmp_path / "whole", sae__pt=earlier_sae()).path / "sae.pt"
    with pytest.raises(UserError, match="damaged"):
        imported(tmp_path, upload(tmp_path / "in", sae__pt=whole.read_bytes()[:-500]))
    with pytest.raises(UserError, match="not a readable zip"):
        imported(tmp_path / "b", upload(tmp_path / "zip", sae__zip=whole.read_bytes()[:-500]))


def test_zip_entries_cannot_leave_their_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../../escaped.pt", b"x")
    with pytest.raises(UserError, match="damaged"):
        imported(tmp_path, upload(tmp_path / "in", bad__zip=(tmp_path / "bad.zip").read_bytes()))
    assert not list(tmp_path.parent.rglob("escaped.pt"))


def test_what_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    uploaded = upload(tmp_path / "in", sae__pt=earlier_sae())
    with pytest.raises(UserError, match="holds sae, not transformer"):
        imported(tmp_path / "a", uploaded, what="transformer")
    with pytest.raises(UserError, match="layout earlier, not saelens"):
        imported(tmp_path / "b", uploaded, format="saelens")
    with pytest.raises(UserError, match="no known layout"):
        imported(tmp_path / "c", upload(tmp_path / "text", notes__bin=b"hello"))
