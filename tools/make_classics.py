"""Makes the held-out text and the built-in language model from a folder of books in Markdown.

    python -m tools.make_classics BOOKS STATE

`BOOKS` holds a folder per author, in it a file per book: title, author and year, a line of dashes, the text. `STATE` is
a folder for checkpoints; if it holds one, training goes on from there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from husai_core import assets
from husai_core.identity import installed_versions, sha256
from husai_core.job import Artifact, ArtifactType, Inputs

NAME = "classics-2m"
HELD_OUT = ("Alice's Adventures in Wonderland", "Lady Susan")
LEFT_OUT = ("Aesop's Fables",)
"""A translation, younger than the other books."""
SPEC: dict[str, Any] = {"dataset": "text", "text": {"tokens": 4_000_000, "batch_size": 16, "lr": 3e-3}, "seed": 0}
README = """# {name}

A GPT-NeoX model of {n_parameters:,} parameters with a byte-level BPE tokeniser of {d_vocab:,} tokens, trained from
nothing on {tokens:,} tokens of {books} English books in the public domain ({epochs:.2f} of one pass over them). It is
here to try things on, offline: it writes no sensible text. `manifest.json` names the books with their digests, the spec
and the seed.

| | nats per token | bits per byte |
|---|---|---|
| sequences of the same books, not trained on | {test_loss:.3f} | {test_bits_per_byte:.3f} |
| two books not trained on (`../{held_out}`) | {held_out_loss:.3f} | {held_out_bits_per_byte:.3f} |

The weights and the tokeniser are under the licence in `LICENSE`; the books are in the public domain.
"""


@dataclass(frozen=True)
class Book:
    """A book without its heading."""

    title: str
    author: str
    year: str
    text: str

    @property
    def file_name(self) -> str:
        """The title as the name of a file."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower().replace("'", "")).strip("-") + ".md"

    def describe(self) -> dict[str, str | int]:
        """What the manifest says about it."""
        data = self.text.encode()
        facts = {"title": self.title, "author": self.author, "year": self.year, "file": self.file_name}
        return {**facts, "sha256": sha256(data), "bytes": len(data)}


def read(path: Path) -> Book:
    """One book; its heading gives title, author and year."""
    heading, line, text = path.read_text().partition("\n-------\n")
    match = re.fullmatch(r"# Title: (.*?)\s+## Author: (.*?)\s+## Year: (.*?)\s*", heading)
    if not line or match is None:
        raise SystemExit(f"{path} has no heading that ends in a line of dashes")
    title, author, year = match.groups()
    return Book(title, author, year, text.strip() + "\n")


class FolderJob:
    """A job whose outputs and checkpoints lie in one folder."""

    device, draining = "cpu", False

    def __init__(self, home: Path) -> None:
        self.home, self.kept = home, home / "checkpoint"
        self.resume = self.kept if self.kept.exists() else None

    def progress(self, done: float, total: float, unit: str) -> None:
        """Nothing: the curve tells enough."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Print one point."""
        print(step, {name: round(value, 4) for name, value in values.items()}, flush=True)

    def log(self, line: str) -> None:
        """Print it."""
        print(line, flush=True)

    def output(self, name: str, type: ArtifactType) -> Path:
        """An empty folder."""
        return _empty(self.home / name)

    def checkpoint(self) -> Path:
        """An empty folder."""
        return _empty(self.home / "next")

    def commit_checkpoint(self, path: Path) -> None:
        """Put it in the place of the last one."""
        shutil.rmtree(self.kept, ignore_errors=True)
        path.rename(self.kept)


def make(books: list[Book], home: Path, spec: Mapping[str, Any], target: Path) -> None:
    """Train on all books but those held and left out, and write the model with its papers into `target`."""
    from husai_core.kinds.train import transformer

    held_out = [book for book in books if book.title in HELD_OUT]
    shown = [book for book in books if book.title not in (*HELD_OUT, *LEFT_OUT)]
    _write(assets.HELD_OUT, held_out)
    _write(home / "text", shown)
    job, checked = FolderJob(home), transformer.Spec.model_validate(spec)
    inputs = Inputs({"text": [Artifact("", "upload", home / "text", [0.0])]})
    result = transformer.run(checked, inputs, job)
    assert result.text is not None
    shutil.copytree(home / "transformer", _empty(target), dirs_exist_ok=True)
    figures = {"test_loss": result.test_loss, "test_accuracy": result.test_accuracy, "steps": result.steps}
    figures |= result.text.model_dump(exclude={"sequences_by_split"}) | measure(target, held_out)
    manifest = {
        "name": target.name,
        "kind": "train.transformer",
        "spec": checked.model_dump(mode="json"),
        "figures": figures,
        "libraries": installed_versions(),
        "books": [book.describe() for book in shown],
        "held_out": [book.describe() for book in held_out],
        "files": {path.name: sha256(path.read_bytes()) for path in sorted(target.iterdir())},
    }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    text = README.format(name=target.name, books=len(shown), held_out=assets.HELD_OUT.name, **figures)
    (target / "README.md").write_text(text)
    shutil.copy(Path(__file__).parents[1] / "LICENSE", target / "LICENSE")


def measure(directory: Path, books: list[Book]) -> dict[str, float]:
    """Loss of a stored model on books, in nats per token and bits per byte."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    from husai_core.data.text import windows
    from husai_core.models import bpe, text_training

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    ids = [tokenizer.encode(book.text, add_special_tokens=False).ids for book in books]
    sequences = windows(ids, model.config.max_position_embeddings, 0, [0])
    loss, _, seen = text_training.figures(model, sequences, torch.arange(len(sequences)))
    bits = bpe.bits_per_byte(tokenizer, loss, seen.tolist())
    return {"held_out_loss": loss, "held_out_bits_per_byte": bits, "held_out_tokens": len(seen)}


def _empty(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _write(directory: Path, books: list[Book]) -> None:
    _empty(directory)
    for book in books:
        (directory / book.file_name).write_text(book.text)


if __name__ == "__main__":
    library, state = map(Path, sys.argv[1:])
    make([read(path) for path in sorted(library.glob("*/*.md"))], state, SPEC, assets.HOME / NAME)
