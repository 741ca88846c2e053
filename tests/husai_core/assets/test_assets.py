from pathlib import Path

import pytest

from husai_core import assets, kinds
from husai_core.kinds.train.activations import Spec

SNAPSHOT = "hub/models--somebody--small/snapshots/0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `somebody/small` in an empty Hugging Face cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    directory = tmp_path / SNAPSHOT
    directory.mkdir(parents=True)
    references = directory.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text(directory.name)
    return directory


def test_a_model_is_present_once_all_its_files_are(snapshot: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert not assets.is_present("somebody/small")
        (snapshot / name).write_bytes(b"{}")
    assert assets.locate("somebody/small") == snapshot


def test_a_mirror_comes_before_the_cache_and_says_what_it_lacks(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = tmp_path / "mirror/somebody/small"
    mirrored.mkdir(parents=True)
    monkeypatch.setenv("HUSAI_MIRROR", str(tmp_path / "mirror"))
    assert assets.missing_files("somebody/small") == list(assets.MODEL_FILES)
    for name in ("config.json", "tokenizer.json"):
        (mirrored / name).write_bytes(b"{}")
    assert assets.missing_files("somebody/small") == ["*.safetensors"]
    for directory in (mirrored, snapshot):
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (directory / name).write_bytes(b"{}")
        assert assets.locate("somebody/small") == mirrored
    assert not assets.is_present("../somebody/small")


def test_built_in_models_are_present_and_paths_are_not(tmp_path: Path) -> None:
    assert all(assets.is_present(name) for name in assets.models())
    assert not assets.is_present(str(tmp_path))
    assert not assets.is_present("nobody/nothing")


def test_a_kind_names_the_assets_of_a_spec() -> None:
    names = kinds.get("train.activations").assets
    assert names
    assert names(Spec(source="language", model="somebody/small")) == ["somebody/small"]
    assert names(Spec(source="synthetic")) == names(Spec(source="language")) == []


def test_what_is_no_name_of_the_registry_is_refused_with_an_example() -> None:
    assert assets.registry_name("release/blocks.0/x") == "release/blocks.0/x"
    with pytest.raises(ValueError, match="'foo' is not RELEASE/SAE_ID, such as"):
        assets.registry_name("foo")


def test_every_text_is_there_with_its_licence() -> None:
    files = {path.name for path in assets.TEXTS.iterdir()} - {"README.md", "LICENSE-python"}
    assert files == {assets.domain(name).name for name in (*assets.DOMAINS, assets.CLASSICS)}
    readme = (assets.TEXTS / "README.md").read_text()
    rows = {name: next(line for line in readme.split("\n") if line.startswith(f"| `{name}`")) for name in files}
    licences = ("CC BY-SA 3.0", "LICENSE-python", "public domain")
    assert all(any(licence in row for licence in licences) for row in rows.values())
    assert all(50_000 < assets.domain(name).stat().st_size <= 64_000 for name in assets.DOMAINS)
