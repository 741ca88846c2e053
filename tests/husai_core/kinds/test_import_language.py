"""Language models that others trained, or that were trained here, as folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from husai_core.activations import store
from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.models import language
from husai_core.stability import seed_group
from tests.husai_core.kinds.stress_job import artifact_in, run, siblings
from tests.husai_core.kinds.test_data_import import folder, imported
from tests.husai_core.models import tiny_language


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("words")
    (folder / "a.txt").write_text("".join(f"{a} plus {b} is {a + b}. " for a in range(20) for b in range(20)))
    return Artifact("a", "upload", folder, [0.0])


TEXT_RECIPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 32, "n_ctx": 16, "d_vocab": 320, "tokens": 5_000}


def test_a_language_model_that_was_trained_here_is_imported(tmp_path: Path, words: Artifact) -> None:
    (trained,) = run("train.transformer", tmp_path / "lm", {"dataset": "text", "text": TEXT_RECIPE}, text=[words])[1]
    items, (created,) = imported(tmp_path, folder(tmp_path / "in", trained))
    assert (items[0]["format"], items[0]["architecture"], items[0]["d_in"]) == ("huggingface", "GPTNeoXForCausalLM", 16)
    cfg = json.loads((created.path / "cfg.json").read_bytes())
    assert cfg["claimed"]["husai"] == json.loads((trained.path / "cfg.json").read_bytes())
    assert language.load(created.path).digest == language.load(trained.path).digest


@pytest.mark.parametrize("bos", [True, False])
def test_the_folder_of_a_language_model_becomes_one_that_activations_are_read_of(
    tmp_path: Path, words: Artifact, bos: bool
) -> None:
    tiny_language.write(tmp_path / "in", bos=bos)
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", "README.md"):
        (tmp_path / "in" / name).write_bytes(b"state")
    result, (created,), _ = run("data.import", tmp_path / "out", {}, file=[artifact_in(tmp_path / "in", "upload")])
    document = result.model_dump()
    assert document["left_out"] == ["README.md", "optimizer.pt", "trainer_state.json", "training_args.bin"]
    assert any("no beginning-of-sequence token" in note for note in document["items"][0]["notes"]) is not bos
    hook = "blocks.1.hook_resid_post"
    spec = {"source": "language", "hook_name": hook, "context": 16}
    (rows,) = run("train.activations", tmp_path / "rows", spec, transformer=[created], text=[words])[1]
    stored = store.load(rows.path)
    model = language.load(created.path)
    assert (stored.prepend_bos, stored.model_digest) == (bos, model.digest)
    assert stored.tokenizer_digest == model.tokenizer_digest
    assert stored.rows.shape[1] == 16


def test_a_zip_of_a_language_model_is_the_same_model(tmp_path: Path) -> None:
    tiny_language.write(tmp_path / "in/my_model")
    archive = shutil.make_archive(str(tmp_path / "zip/my_model"), "zip", tmp_path / "in")
    (of_folder, of_zip) = (
        imported(tmp_path / name, artifact_in(path, "upload"))[1][0].path
        for name, path in (("a", tmp_path / "in"), ("b", Path(archive).parent))
    )
    assert language.weights_digest(of_zip) == language.weights_digest(of_folder)
    assert {path.name for path in of_zip.iterdir()} == {path.name for path in of_folder.iterdir()}


def test_saes_on_an_imported_model_know_it_by_its_weights(tmp_path: Path, words: Artifact) -> None:
    tiny_language.write(tmp_path / "in")
    (model,) = imported(tmp_path, artifact_in(tmp_path / "in", "upload"))[1]
    spec = {"source": "language", "hook_name": "blocks.1.hook_resid_post", "context": 16}
    (rows,) = run("train.activations", tmp_path / "rows", spec, transformer=[model], text=[words])[1]
    group = seed_group.read(siblings(tmp_path / "saes", rows, (0, 1), tokens=2_000))
    group.check(model)
    tiny_language.write(tmp_path / "other", n_layers=2)
    (other,) = imported(tmp_path / "b", artifact_in(tmp_path / "other", "upload"))[1]
    with pytest.raises(UserError, match="not trained on this transformer"):
        group.check(other)


def changed(directory: Path, **fields: Any) -> None:
    """Change what a language model's `config.json` says."""
    cfg = json.loads((directory / "config.json").read_bytes()) | fields
    (directory / "config.json").write_text(json.dumps(cfg))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 10**7}, "describes .* parameters, but the files hold"),
        ({"num_hidden_layers": 10**6}, "more than 256"),
        ({"num_hidden_layers": 4}, "hold no weights for"),
        ({"model_type": "nothing"}, "cannot be read"),
        ({"architectures": None}, "architectures: Input"),
    ],
)
def test_a_language_model_that_does_not_fit_its_config_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    changed(tiny_language.write(tmp_path / "in"), **change)
    with pytest.raises(UserError, match=message):
        imported(tmp_path, artifact_in(tmp_path / "in", "upload"))


@pytest.mark.parametrize(
    ("lost", "instead", "message"),
    [
        ("tokenizer.json", "", "has no tokenizer.json beside it"),
        ("model.safetensors", "pytorch_model.bin", "safe_serialization=True"),
    ],
)
def test_an_incomplete_language_model_is_told_how_to_be_saved(
    tmp_path: Path, lost: str, instead: str, message: str
) -> None:
    tiny_language.write(tmp_path / "in")
    (tmp_path / "in" / lost).unlink()
    if instead:
        (tmp_path / "in" / instead).write_bytes(b"pickled")
    with pytest.raises(UserError, match=message):
        imported(tmp_path, artifact_in(tmp_path / "in", "upload"))
