import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from husai_core import assets
from husai_core.activations import store
from husai_core.data import text
from husai_core.identity import sha256
from husai_core.models import language
from tests.husai_core.kinds.stress_job import run
from tools import make_classics as make

HOME = assets.HOME / make.NAME


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((HOME / "manifest.json").read_bytes())
    return values


def test_the_files_are_those_that_the_manifest_names(manifest: dict[str, Any]) -> None:
    files = {path.name: sha256(path.read_bytes()) for path in HOME.iterdir()}
    assert files.items() >= manifest["files"].items()
    assert files.keys() - manifest["files"].keys() == {"manifest.json", "README.md", "LICENSE"}
    assert (HOME / "model.safetensors").stat().st_size <= 8_000_000
    held_out = {path.name: sha256(path.read_bytes()) for path in assets.HELD_OUT.iterdir()}
    assert held_out == {book["file"]: book["sha256"] for book in manifest["held_out"]}
    assert not held_out.keys() & {book["file"] for book in manifest["books"]}


def test_transformers_loads_it_and_it_predicts_what_its_manifest_says(manifest: dict[str, Any]) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(HOME), AutoModelForCausalLM.from_pretrained(HOME)
    documents = [document.text[:20_000] for document in text.read([assets.HELD_OUT])]
    ids = [tokenizer.encode(document, verbose=False) for document in documents]
    assert [tokenizer.decode(values) for values in ids] == documents
    sequences = text.windows(ids, 128, tokenizer.bos_token_id, tokenizer.all_special_ids)
    kept = sequences.is_text[:, 1:]
    with torch.no_grad():
        logits = model(sequences.tokens[:, :-1]).logits
    loss = float(torch.nn.functional.cross_entropy(logits[kept], sequences.tokens[:, 1:][kept]))
    assert loss == pytest.approx(manifest["figures"]["held_out_loss"], rel=0.05)
    assert loss < 0.7 * math.log(4096)


def test_transformer_lens_gives_the_activations_of_transformers() -> None:
    model, original = language.load(language.find(make.NAME)), AutoModelForCausalLM.from_pretrained(HOME)
    tokens = model.sequences([text.TextFile("", "Alice was beginning to get very tired. " * 40)], 128).tokens
    with torch.no_grad():
        states = original(tokens, output_hidden_states=True).hidden_states
    names = {f"blocks.{i}.hook_resid_post": states[i + 1] for i in range(3)}
    for name, values in model.activations(tokens, list(names)).items():
        assert torch.allclose(values, names[name], atol=1e-5), name


def test_a_job_names_it(tmp_path: Path) -> None:
    spec = {"source": "language", "model": make.NAME, "max_rows": 3000, "dtype": "float16"}
    spec |= {"hook_names": ["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"]}
    result, artifacts, _ = run("train.activations", tmp_path, spec)
    loaded = [store.load(stored.path) for stored in artifacts]
    assert [hook["d_model"] for hook in result.model_dump()["hooks"]] == [128, 128]
    assert {(stored.model, stored.model_digest) for stored in loaded} == {(make.NAME, language.load(HOME).digest)}


def test_the_books_lose_their_heading_alone(tmp_path: Path) -> None:
    path = tmp_path / "book.md"
    path.write_text(
        "# Title: A Book's Name\n\n## Author: Some Body\n\n## Year: 1800\n\n-------\n\n## One\n\n-------\nend"
    )
    book = make.read(path)
    assert (book.title, book.author, book.year) == ("A Book's Name", "Some Body", "1800")
    assert book.text == "## One\n\n-------\nend\n"
    assert book.file_name == "a-books-name.md"
    path.write_text("no heading")
    with pytest.raises(SystemExit, match="no heading"):
        make.read(path)


def test_made_from_nothing_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "HELD_OUT", tmp_path / "held-out")
    books = [
        make.Book(title, "Some Body", "1800", " ".join(f"{title} has the line {i}." for i in range(300)))
        for title in ("One", "Two", *make.HELD_OUT, *make.LEFT_OUT)
    ]
    size = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 16, "n_ctx": 16, "d_vocab": 280, "tokens": 2000}
    spec = {"dataset": "text", "text": size}
    make.make(books, tmp_path / "state", spec, tmp_path / "model")
    stored_manifest = json.loads((tmp_path / "model" / "manifest.json").read_bytes())
    assert [book["title"] for book in stored_manifest["books"]] == ["One", "Two"]
    assert {path.name for path in (tmp_path / "held-out").iterdir()} == {
        book["file"] for book in stored_manifest["held_out"]
    }
    assert "280" in (tmp_path / "model" / "README.md").read_text()
    assert language.load(tmp_path / "model").n_ctx == 16
