import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from husai_core.data.text import TextFile, divided
from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs
from husai_core.kinds.train import transformer
from husai_core.kinds.train.transformer import Result, Spec
from husai_core.local_job import artifact_in
from husai_core.models import language
from husai_core.models.bpe import END
from tests.husai_core.kinds.stress_job import run

TEXT: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_mlp": 32, "n_ctx": 16, "d_vocab": 320}
TEXT |= {"tokens": 16 * 8 * 40, "batch_size": 8, "evaluate_every": 10, "test_fraction": 0.1, "lr": 1e-2}
SPEC = {"dataset": "text", "text": TEXT}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("".join(f"{a} plus {b} is {a + b}. " for a in range(20) for b in range(20)))
    (folder / "b.md").write_text("Two é and one é are three é. " * 40)
    return artifact_in(folder, "upload")


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory, words: Artifact) -> tuple[Result, Artifact]:
    result, (item,), _ = run("train.transformer", tmp_path_factory.mktemp("made"), SPEC, text=[words])
    assert isinstance(result, Result)
    return result, item


def test_the_model_learns_sequences_that_it_never_saw(created: tuple[Result, Artifact]) -> None:
    result, _ = created
    assert result.text is not None
    assert result.test_loss < 0.6 * math.log(result.text.d_vocab)
    assert result.curve[-1].validation_loss < 0.8 * result.curve[0].validation_loss
    assert [point.step for point in result.curve] == [10, 20, 30, 40]
    assert result.text.tokens == 16 * 8 * 40
    assert result.leak is None


def test_transformers_and_transformer_lens_load_it(created: tuple[Result, Artifact]) -> None:
    path = created[1].path
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    tokens = tokenizer("2 plus 3 is 5. é", return_tensors="pt").input_ids
    assert tokenizer.decode(tokens[0]) == "2 plus 3 is 5. é"
    assert tokenizer.bos_token_id == 0
    with torch.no_grad():
        expected = model(tokens, output_hidden_states=True).hidden_states[1]
    output = language.load(path).activations(tokens, ["blocks.0.hook_resid_post"])["blocks.0.hook_resid_post"]
    assert torch.allclose(output, expected, atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == created[0].model_dump()["text"]["n_parameters"]


def test_bits_per_byte_are_those_of_the_stored_model(created: tuple[Result, Artifact], words: Artifact) -> None:
    """Over all text, measured anew from the files, as the loss of its sequences."""
    result, item = created
    model, read = AutoModelForCausalLM.from_pretrained(item.path).eval(), language.load(item.path)
    text = [(words.path / name).read_text() for name in ("a.txt", "b.md")]
    sequences = read.sequences([language.text.TextFile("", each) for each in text], 16)
    with torch.no_grad():
        logits = model(sequences.tokens).logits[:, :-1]
    kept = sequences.is_text[:, 1:]
    nats = torch.nn.functional.cross_entropy(logits[kept], sequences.tokens[:, 1:][kept], reduction="sum")
    bits = float(nats) / math.log(2) / sum(len(each.encode()) for each in text)
    assert result.text is not None
    assert result.text.test_bits_per_byte == pytest.approx(bits, rel=0.15)  # the test part is a tenth of the text


def test_activations_are_read_from_it(created: tuple[Result, Artifact], words: Artifact, tmp_path: Path) -> None:
    spec = {"source": "language", "context": 16, "hook_name": "blocks.1.hook_resid_post"}
    result, _, _ = run("train.activations", tmp_path, spec, transformer=[created[1]], text=[words])
    assert result.model_dump()["d_model"] == 16


def test_equal_seeds_give_equal_bytes(created: tuple[Result, Artifact], words: Artifact, tmp_path: Path) -> None:
    again, (item,), _ = run("train.transformer", tmp_path / "again", SPEC, text=[words])
    assert again == created[0]
    assert item.digest == created[1].digest
    other = run("train.transformer", tmp_path / "other", SPEC | {"seed": 1}, text=[words])[1][0]
    assert other.digest != item.digest


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, local_job: Any, created: tuple[Result, Artifact], words: Artifact
) -> None:
    inputs, spec = Inputs({"text": [words]}), Spec.model_validate(SPEC)
    whole = local_job(tmp_path / "whole", drain_at=20)
    assert transformer.run(spec, inputs, whole) == created[0]
    assert len(whole.committed) == 1
    resumed = local_job(tmp_path / "resumed", resume=whole.committed[0])
    assert transformer.run(spec, inputs, resumed) == created[0]
    assert resumed.steps == [30, 40]
    for path in created[1].path.iterdir():
        assert (tmp_path / "resumed" / "transformer" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_artifact_says_what_it_was_trained_on(created: tuple[Result, Artifact]) -> None:
    names = {path.name for path in created[1].path.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "cfg.json"}
    cfg = json.loads((created[1].path / "cfg.json").read_bytes())
    assert cfg["dataset"]["documents"].keys() == {"a.txt", "b.md"}
    assert str(created[1].path) not in "".join(path.read_text("latin1") for path in created[1].path.iterdir())


def test_without_text_the_books_of_the_package_are_read(tmp_path: Path) -> None:
    spec = {"dataset": "text", "text": TEXT | {"tokens": 16 * 8, "tie_embeddings": True}}
    result, _, _ = run("train.transformer", tmp_path, spec)
    assert result.model_dump()["text"]["sequences_by_split"]["train"] > 5000


def test_the_test_part_shapes_neither_tokeniser_nor_weights(tmp_path: Path, words: Artifact) -> None:
    """A word of one passage is a token only where the passage is trained on."""
    changed = [(words.path / name).read_text() for name in ("a.txt", "b.md")]
    whole = [TextFile("a.txt", changed[0]), TextFile("b.md", changed[1])]
    recipe = Spec.model_validate(SPEC).text
    stretches, parts = divided(whole, 4 * recipe.n_ctx, END, recipe.validation_fraction, recipe.test_fraction, 0)
    test = next(stretch for stretch, split in zip(stretches, parts.tolist(), strict=True) if split == 2)
    other = test.translate(str.maketrans("0123456789plusi", "qqqqqqqqqqqzqzq"))
    assert other != test
    (tmp_path / "text").mkdir()
    for name, text in zip(("a.txt", "b.md"), changed, strict=True):
        assert text.count(test) <= 1
        (tmp_path / "text" / name).write_text(text.replace(test, other))
    output = [
        run("train.transformer", tmp_path / name, SPEC, text=[item])[:2]
        for name, item in (("as it was", words), ("changed", artifact_in(tmp_path / "text", "upload")))
    ]
    for file in ("tokenizer.json", "model.safetensors"):
        item, two = ((created.path / file).read_bytes() for _, (created,) in output)
        assert item == two, file
    assert output[0][0].model_dump()["test_loss"] != output[1][0].model_dump()["test_loss"]


@pytest.mark.parametrize(("word", "split"), [("", "train"), ("the dog. " * 100, "validation")])
def test_a_part_without_a_token_to_predict_is_told(tmp_path: Path, word: str, split: str) -> None:
    for number in range(1, 79):
        (tmp_path / f"{number}.txt").write_text(END * number)
    (tmp_path / "a.txt").write_text(word)
    spec = SPEC | {"text": TEXT | {"n_ctx": 256, "validation_fraction": 0.1, "test_fraction": 0.1}}
    with pytest.raises(UserError, match=f"the {split} part of the text has no token to predict"):
        run("train.transformer", tmp_path / "job", spec, text=[artifact_in(tmp_path, "upload")])


def test_divergence_is_told(tmp_path: Path, words: Artifact) -> None:
    spec = {"dataset": "text", "text": TEXT | {"lr": 1.0, "weight_decay": 1e30, "warmup_fraction": 0}}
    with pytest.raises(UserError, match="diverged"):
        run("train.transformer", tmp_path, spec, text=[words])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "text", "p": 13}, "p: only for dataset modular"),
        ({"text": TEXT}, "only for dataset text"),
        ({"dataset": "text", "text": {"d_model": 20, "n_heads": 4}}, "not a multiple of 8"),
        ({"dataset": "text", "text": {"betas": (0.9, 1.0)}}, "betas"),
    ],
)
def test_impossible_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(fields)


def test_a_spec_of_a_language_model_survives_its_own_defaults() -> None:
    spec = Spec.model_validate(SPEC)
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
