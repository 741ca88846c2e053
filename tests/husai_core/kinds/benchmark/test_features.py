"""`benchmark.features` on a network for addition, and on the built-in language model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from husai_core import assets, kinds, panels
from husai_core.activations import store
from husai_core.job import Artifact
from husai_core.kinds.benchmark.features import Result
from husai_core.local_job import artifact_in
from husai_core.panels import to_csv
from husai_core.saes import checkpoint
from tests.husai_core.kinds.stress_job import RECIPE, network, run, siblings

KIND = "benchmark.features"


def records(artifact: Artifact) -> list[dict[str, str]]:
    """The rows of `features.csv`."""
    with (artifact.path / "features.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Artifact, list[Artifact], Artifact]:
    home = tmp_path_factory.mktemp("addition")
    model = network(home / "network")
    (rows,) = run("train.activations", home / "rows", {}, transformer=[model])[1]
    saes = siblings(home / "saes", rows)
    result, (table,), job = run(KIND, home / "features", {}, saes=saes, transformer=[model], activations=[rows])
    assert isinstance(result, Result)
    assert job.reports[-1] == (result.sequences, result.sequences)
    return result, table, saes, rows


def test_every_latent_has_a_record_of_held_out_rows(described: Any) -> None:
    result, table, saes, rows = described
    test, sae = store.load(rows.path).part("test")[:], checkpoint.load(saes[0].path)
    latents, written = sae.encode(test), records(table)
    assert result.rows == len(test)
    assert [int(record["latent"]) for record in written] == list(range(RECIPE["d_sae"]))  # type: ignore[call-overload]
    frequency = torch.tensor([float(record["frequency"]) for record in written])
    assert torch.allclose(frequency, (latents != 0).float().mean(0), atol=0.02)
    strongest = torch.tensor([float(record["max_activation"]) for record in written])
    assert torch.allclose(strongest, latents.amax(0), rtol=1e-3, atol=1e-4)
    assert sum(result.frequencies.values()) == result.d_sae


def test_twins_and_the_mask_agree_with_the_decoders(described: Any) -> None:
    result, table, saes, _ = described
    first, *others = (checkpoint.load(sae.path).decoder for sae in saes)
    mask, written = load_file(table.path / "reappears.safetensors")["reappears"], records(table)
    for record, reappears in zip(written, mask.tolist(), strict=True):
        twins = json.loads(record["twins"])
        cosines = [
            float(abs(first[int(record["latent"])] @ other[twin])) for other, twin in zip(others, twins, strict=True)
        ]
        assert float(record["twin_cosine"]) == pytest.approx(sum(cosines) / 2, abs=1e-5)
        assert reappears == all(cosine > 0.7 for cosine in cosines)
        assert float(record["found_low"]) <= float(record["found_fraction"]) <= float(record["found_high"])
    alive = [float(record["found_fraction"]) for record in written if float(record["frequency"]) > 0]
    assert result.statistics["found_fraction"].value == pytest.approx(sum(alive) / len(alive))


def test_the_parquet_file_holds_the_same_records_with_types(described: Any) -> None:
    _, table, _, _ = described
    typed, written = parquet.read_table(table.path / "features.parquet").to_pylist(), records(table)
    assert [record["latent"] for record in typed] == list(range(len(written)))
    for record, text in zip(typed, written, strict=True):
        assert list(record) == list(text)
        assert str(record["frequency"]) == text["frequency"]
        assert (record["mean_activation"] is None) == (text["mean_activation"] == "")
        assert record["twins"] == json.loads(text["twins"])
        assert record["contexts"] == json.loads(text["contexts"])
        pairs = [[neighbour["latent"], neighbour["cosine"]] for neighbour in record["neighbours"]]
        assert pairs == json.loads(text["neighbours"])
        assert [pair["token"] for pair in record["promoted"]] == [token for token, _ in json.loads(text["promoted"])]


def test_the_page_shows_a_table_and_cards(described: Any) -> None:
    result = described[0]
    shown = kinds.get(KIND).panels(result.model_dump(mode="json"))
    assert isinstance(shown[0], panels.Headline)
    assert "Another seed finds a latent" in shown[0].text
    assert {type(panel) for panel in shown} >= {panels.Table, panels.Bars, panels.FeatureCard}
    assert all(len(to_csv(panel).splitlines()) > 1 for panel in shown)
    (latents,) = (panel for panel in shown if isinstance(panel, panels.Table))
    assert latents.searchable
    assert all(len(record.contexts) <= 1 for record in result.shown)
    column = [column.label for column in latents.columns].index("fires most at")
    for row, record in zip(latents.rows, result.shown, strict=True):
        assert str(row[column]).count("«") == len(record.contexts)
    assert result.statistics.keys() == kinds.get(KIND).statistics.keys()


def test_contexts_and_tokens_of_a_language_model_are_text(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    chapter = (assets.HELD_OUT / "lady-susan.md").read_text()[:16_000]
    (tmp_path / "text" / "a.txt").write_text(chapter)
    text = artifact_in(tmp_path / "text", "upload")
    spec = {"source": "language", "model": "classics-2m", "hook_name": "blocks.1.hook_resid_post", "context": 32}
    (rows,) = run("train.activations", tmp_path / "rows", spec | {"max_rows": 1500}, text=[text])[1]
    saes = siblings(tmp_path / "saes", rows, [0], d_sae=256, k=8)
    inputs = {"saes": saes, "text": [text], "activations": [rows]}
    result, (table,), _ = run(KIND, tmp_path / "features", {"model": "classics-2m", "contexts": 2}, **inputs)
    assert isinstance(result, Result)
    written = [record for record in records(table) if float(record["frequency"]) > 0.01]
    for record in written:
        for context in json.loads(record["contexts"]):
            plain = context.replace("«", "").replace("»", "").replace("<|endoftext|>", "")
            assert context.count("«") == 1
            assert plain in chapter
        assert len(json.loads(record["promoted"])) == 8
    assert len(written) > 20
    assert not (table.path / "reappears.safetensors").exists()
    assert "found_fraction" not in result.statistics
