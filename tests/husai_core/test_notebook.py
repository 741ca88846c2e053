from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import husai_core as hc
from husai_core import panels
from husai_core.errors import UserError
from husai_core.saes.trainer import TrainedSAE
from husai_core.stability import nulls

FIXTURES = Path(__file__).parent / "saes/fixtures"
RECIPE = {"d_sae": 24, "k": 3, "tokens": 8_000, "batch_size": 100}


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    active = (torch.rand(1_200, 20, generator=source) < 0.1).float() * torch.rand(1_200, 20, generator=source)
    return active @ torch.randn(20, 10, generator=source)


@pytest.fixture(scope="module")
def saes(rows: torch.Tensor) -> list[TrainedSAE]:
    return hc.train(rows[:800], rows[800:1_000], seeds=[0, 1, 2], **RECIPE)


def test_importing_the_package_imports_no_torch() -> None:
    """Nor does asking for what is there, nor running what needs none."""
    code = "import sys, husai_core as hc; dir(hc); hc.run; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_every_name_that_is_announced_is_there() -> None:
    assert all(callable(getattr(hc, name)) for name in hc.__all__)
    assert set(hc.__all__) <= set(dir(hc))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(hc, "nothing")  # noqa: B009


def test_variants_are_trained_with_every_seed(rows: torch.Tensor) -> None:
    bank = hc.train(rows[:800], rows[800:1_000], seeds=[4, 5], variants=[{}, {"k": 2}], **RECIPE)
    assert [(sae.k, sae.seed) for sae in bank] == [(3, 4), (3, 5), (2, 4), (2, 5)]


def test_figures_are_shown_as_text_and_as_html(rows: torch.Tensor, saes: list[TrainedSAE]) -> None:
    evaluation = hc.evaluate(saes, rows[1_000:])
    assert [figures.explained_variance > 0.3 for figures in evaluation.figures] == [True] * 3
    assert evaluation.labels == ["topk, seed 0", "topk, seed 1", "topk, seed 2"]
    assert "topk, seed 1" in repr(evaluation)
    assert "<table" in evaluation._repr_html_()
    assert len(hc.evaluate(saes[0], rows[1_000:]).figures) == 1


def test_seeds_are_compared_beside_their_nulls(rows: torch.Tensor, saes: list[TrainedSAE]) -> None:
    comparison = hc.compare_seeds(saes, rows[1_000:])
    overlap, null = comparison.statistics["pwmcc"], comparison.statistics["pwmcc_gaussian_null"]
    assert null.value == pytest.approx(nulls.gaussian(10, 24)["pwmcc"].mean)
    assert comparison.statistics["pwmcc_excess"].value == pytest.approx((overlap.value or 0) - (null.value or 0))
    assert overlap.low is not None
    assert "PWMCC (mean maximum cosine between seeds)" in repr(comparison)
    assert "<svg" in comparison._repr_html_()


def test_outside_a_notebook_panels_are_laid_out_and_an_sae_is_one_line(
    saes: list[TrainedSAE], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    columns = [panels.Column(label="name"), panels.Column(label="x", format="number")]
    shown = [panels.Table(title="T", columns=columns, rows=[["a", 0.5]]), panels.Text(paragraphs=["x"], folded=True)]
    hc.show(shown)
    assert capsys.readouterr().out.splitlines() == ["T", "  name      x", "  ────  ─────", "  a     0.500"]
    hc.show(saes[0])
    assert "TrainedSAE(topk, d_in=10, d_sae=24, k=3)" in capsys.readouterr().out
    with pytest.raises(UserError, match="show takes a result, an SAE or a list of panels, not int"):
        hc.show(3)
    assert repr(saes[0]) == "TrainedSAE(topk, d_in=10, d_sae=24, k=3)"


def test_arrays_are_rows_too_and_other_widths_are_refused(rows: torch.Tensor, saes: list[TrainedSAE]) -> None:
    arrays = rows.double().numpy()
    (sae,) = hc.train(arrays[:800], arrays[800:1_000], seeds=[0], **RECIPE)
    assert torch.equal(sae.W_dec, saes[0].W_dec)
    assert hc.evaluate(sae, arrays[1_000:]).figures == hc.evaluate(sae, rows[1_000:]).figures
    with pytest.raises(UserError, match="rows have width 10, but validation has width 9"):
        hc.train(rows[:800], rows[800:1_000, :9], **RECIPE)
    for read in (hc.evaluate, hc.compare_seeds):
        with pytest.raises(UserError, match="the SAEs read rows of width 10, but these have width 9"):
            read(saes, rows[:, :9])
    with pytest.raises(UserError, match="rows: give a tensor or an array"):
        hc.evaluate(saes, "rows")
    with pytest.raises(UserError, match="kk: unknown field; did you mean k"):
        hc.train(rows[:800], rows[800:], kk=3)


def test_what_cannot_be_compared_is_refused(rows: torch.Tensor, saes: list[TrainedSAE]) -> None:
    (narrow,) = hc.train(rows[:800], rows[800:1_000], seeds=[0], **RECIPE | {"d_sae": 16})
    for wrong in (saes[:1], [saes[0], narrow]):
        with pytest.raises(UserError, match="at least two SAEs of one shape"):
            hc.compare_seeds(wrong, rows)
    with pytest.raises(UserError, match="one training and no two seeds"):
        hc.compare_seeds([saes[0], saes[1], saes[0]], rows)


def test_a_saved_sae_comes_back_with_its_training(rows: torch.Tensor, saes: list[TrainedSAE], tmp_path: Path) -> None:
    loaded = hc.load_sae(hc.save_sae(saes[1], tmp_path / "deep/sae"))
    torch.testing.assert_close(loaded(rows), saes[1](rows))
    assert loaded.provenance["seed"] == 1
    again = hc.load_sae(hc.save_sae(loaded, tmp_path / "again"))
    assert again.provenance == loaded.provenance
    assert hc.compare_seeds([loaded, saes[0]], rows).labels == [1, 0]


@pytest.mark.parametrize("archive", ["saelens.zip", "sparsify.zip", "dictionary_learning.zip"])
def test_saes_of_other_libraries_are_loaded_one_by_one(archive: str, tmp_path: Path) -> None:
    shutil.unpack_archive(FIXTURES / archive, tmp_path)
    weights = [*tmp_path.rglob("*.safetensors"), *tmp_path.rglob("ae.pt")]
    assert weights
    for file in weights:
        by_file, by_folder = hc.load_sae(file), hc.load_sae(str(file.parent))
        assert torch.equal(by_file.W_dec, by_folder.W_dec)
    with pytest.raises(UserError, match=r"holds \d+ SAEs, not one"):
        hc.load_sae(FIXTURES / archive)


def test_what_is_no_sae_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file or folder"):
        hc.load_sae(tmp_path / "nowhere")
    (tmp_path / "cfg.json").write_text(json.dumps({"d_model": 4}))
    with pytest.raises(UserError):
        hc.load_sae(tmp_path)
