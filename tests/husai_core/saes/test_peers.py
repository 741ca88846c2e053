"""Against what SAELens, dictionary_learning and sparsify compute themselves.

The fixtures are what `benchmarks/peers/fixtures.py` wrote. Where HUSAI_PEERS_PYTHON names a Python in which
`benchmarks/peers/requirements.txt` is installed, the peers write them afresh, and SAELens loads what HUSAI writes.
"""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from husai_core.importers import Imported, find
from husai_core.importers.dictionary_learning import CLASSES
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE
from tests.husai_core.saes.test_checkpoint import KINDS, X, sae

PEERS = os.environ.get("HUSAI_PEERS_PYTHON")
SCRIPTS = Path(__file__).parents[3] / "benchmarks/peers"
LAYOUTS = ("saelens", "dictionary_learning", "sparsify")


def by_peers(script: str, directory: Path) -> None:
    subprocess.run([str(PEERS), SCRIPTS / script, directory], check=True, timeout=280)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the peers wrote."""
    if not PEERS:
        return Path(__file__).parent / "fixtures"
    directory = tmp_path_factory.mktemp("fresh")
    by_peers("fixtures.py", directory)
    return directory


def folders(archive: Path) -> list[str]:
    return sorted({name.partition("/")[0] for name in zipfile.ZipFile(archive).namelist()})


def imported(archive: Path, tmp_path: Path) -> dict[str, Imported]:
    """What is read from each folder of an archive."""
    (tmp_path / "in").mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "in" / archive.name).symlink_to(archive)
    return dict(zip(folders(archive), find([tmp_path / "in"], tmp_path / "scratch").things, strict=True))


def expected(written: Path, layout: str, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, and the peer's latents and output."""
    tensors = load_file(written / "expected.safetensors")
    latents, output = (tensors[f"{layout}/{name}/{key}"] for key in ("latents", "output"))
    return tensors["x"], latents, output


def same(sae: SAE, x: Tensor, latents: Tensor, output: Tensor) -> None:
    assert latents.ne(0).any(1).all()
    torch.testing.assert_close(sae.encode(x), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_imported_sae_computes_what_its_own_library_computes(layout: str, written: Path, tmp_path: Path) -> None:
    by_folder = imported(written / f"{layout}.zip", tmp_path)
    assert len(by_folder) >= 2
    for name, thing in by_folder.items():
        assert (thing.format, thing.what) == (layout, "sae")
        assert isinstance(thing.value, SAE)
        same(thing.value, *expected(written, layout, name))
        (tmp_path / name).mkdir()
        checkpoint.save(thing.value, tmp_path / name, {})
        same(checkpoint.load(tmp_path / name), *expected(written, layout, name))


def test_every_class_that_the_peers_train_is_among_the_fixtures(written: Path) -> None:
    assert {*folders(written / "dictionary_learning.zip")} == {*CLASSES}
    with zipfile.ZipFile(written / "saelens.zip") as archive:
        named = {
            json.loads(archive.read(f"{name}/cfg.json"))["architecture"] for name in folders(written / "saelens.zip")
        }
    assert named == {name for name in KINDS if not name.startswith("husai_")}


def test_what_saelens_wrote_is_written_again_alike(written: Path, tmp_path: Path) -> None:
    """The same tensors, and the same value of every entry of the configuration that both write."""
    for name, thing in imported(written / "saelens.zip", tmp_path).items():
        (tmp_path / name).mkdir()
        assert isinstance(thing.value, SAE)
        checkpoint.save(thing.value, tmp_path / name, {})
        ours = load_file(tmp_path / name / checkpoint.WEIGHTS)
        cfg_of_ours = json.loads((tmp_path / name / checkpoint.CONFIG).read_text())
        with zipfile.ZipFile(written / "saelens.zip") as archive:
            theirs = load(archive.read(f"{name}/{checkpoint.WEIGHTS}"))
            cfg = json.loads(archive.read(f"{name}/{checkpoint.CONFIG}"))
        assert ours.keys() == theirs.keys()
        if not cfg.get("rescale_acts_by_decoder_norm"):
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
            assert {key: cfg_of_ours[key] for key in cfg_of_ours.keys() - {"metadata", "husai"}}.items() <= cfg.items()


if PEERS:

    def test_saelens_computes_the_same_or_refuses(tmp_path: Path) -> None:
        for name, fields in KINDS.items():
            (tmp_path / name).mkdir()
            checkpoint.save(sae(**fields), tmp_path / name, {"seed": 3})
            save_file({"x": X}, tmp_path / name / "x.safetensors")
        by_peers("load.py", tmp_path)
        for name, fields in KINDS.items():
            if name.startswith("husai_"):
                assert (tmp_path / name / "refused.txt").read_text() == f"KeyError: '{name}'"
            else:
                peer = load_file(tmp_path / name / "peer.safetensors")
                same(sae(**fields), X, peer["latents"], peer["output"])
