from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from husai_core import assets
from husai_core.activations import store
from husai_core.data.text import read
from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.kinds.train.activations import Result, Spec
from husai_core.local_job import artifact_in
from husai_core.models import language
from tests.husai_core.kinds.stress_job import run
from tests.husai_core.models import tiny_language

KIND = "train.activations"
HOOKS = ["blocks.1.hook_mlp_out", "blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"]
SPEC: dict[str, Any] = {"source": "language", "hook_names": HOOKS, "context": 16}
EXACT = "donot_use_mm_for_euclid_dist"
CHAPTER = (assets.HELD_OUT / "lady-susan.md").read_text()[:6000]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_in(tiny_language.write(tmp_path_factory.mktemp("tiny")), "transformer")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text(tiny_language.TEXT + CHAPTER)
    (folder / "b.md").write_text("# The dog\n\nsleeps.")
    return artifact_in(folder, "upload")


@pytest.fixture(scope="module")
def collected(
    tmp_path_factory: pytest.TempPathFactory, model: Artifact, text: Artifact
) -> tuple[Result, list[Artifact], list[tuple[float, float]]]:
    result, artifacts, job = run(KIND, tmp_path_factory.mktemp("rows"), SPEC, transformer=[model], text=[text])
    assert isinstance(result, Result)
    return result, artifacts, job.reports


def test_one_artifact_per_hook_in_their_order(collected: Any, model: Artifact) -> None:
    result, artifacts, reported = collected
    loaded = [store.load(item.path) for item in artifacts]
    assert [item.hook_name for item in loaded] == [hook.hook_name for hook in result.hooks] == HOOKS
    assert [item.rows.shape[1] for item in loaded] == [hook.d_model for hook in result.hooks] == [16, 16, 32]
    assert {(item.source, item.model_digest, item.position, item.context) for item in loaded} == {
        ("language", language.load(model.path).digest, "all", 16)
    }
    assert {len(item.rows) for item in loaded} == {result.n_rows}
    assert reported[-1] == (result.n_rows, result.n_rows)


def test_every_context_gives_its_hidden_state_once(collected: Any, model: Artifact, text: Artifact) -> None:
    rows = store.load(collected[1][1].path)
    sequences = language.load(model.path).sequences(read([text.path]), 16)
    original = AutoModelForCausalLM.from_pretrained(model.path).eval()
    with torch.no_grad():
        states = original(sequences.tokens, output_hidden_states=True).hidden_states[1]
    assert rows.place is not None
    contexts, seen = dict[tuple[int, ...], int](), sequences.is_text.nonzero().tolist()
    for sequence, place in seen:  # the first token is special: no row
        contexts.setdefault(tuple(sequences.tokens[sequence, : place + 1].tolist()), 16 * sequence + place)
    assert len(rows.rows) == len(contexts) < len(seen)
    wanted = torch.tensor(list(contexts.values()))
    distance, nearest = torch.cdist(rows.rows[:], states.flatten(0, 1)[wanted], compute_mode=EXACT).min(1)
    assert distance.max() < 1e-4
    assert len(nearest.unique()) == len(contexts)
    assert torch.equal(sequences.tokens.flatten()[wanted[nearest]], rows.tokens[:, 0])
    assert torch.equal(wanted[nearest] % 16, rows.place)


@pytest.mark.parametrize(
    ("bos", "choice", "prepended"), [(True, None, True), (True, False, False), (False, None, False)]
)
def test_the_first_token_of_a_sequence_is_chosen_and_recorded(
    tmp_path: Path, text: Artifact, bos: bool, choice: bool | None, prepended: bool
) -> None:
    model = artifact_in(tiny_language.write(tmp_path / "model", bos=bos), "transformer")
    spec = SPEC | {"hook_names": ["blocks.1.hook_resid_post"], "prepend_bos": choice, "special_tokens": True}
    _, (artifact_of_rows,), _ = run(KIND, tmp_path / "rows", spec, transformer=[model], text=[text])
    rows = store.load(artifact_of_rows.path)
    assert rows.prepend_bos is prepended
    assert rows.place is not None
    assert bool((rows.tokens[rows.place == 0] == 0).all()) is prepended
    assert bool((rows.tokens[rows.place == 0] == 0).any()) is prepended
    sequences = language.load(model.path).sequences(read([text.path]), 16, choice)
    original = AutoModelForCausalLM.from_pretrained(model.path).eval()
    with torch.no_grad():
        states = original(sequences.tokens, output_hidden_states=True).hidden_states[2].flatten(0, 1)
    assert torch.cdist(rows.rows[:], states, compute_mode=EXACT).min(1).values.max() < 1e-4


def test_a_token_that_is_not_there_cannot_be_prepended(tmp_path: Path, text: Artifact) -> None:
    model = artifact_in(tiny_language.write(tmp_path / "model", bos=False), "transformer")
    with pytest.raises(UserError, match="no beginning-of-sequence token"):
        run(KIND, tmp_path / "rows", SPEC | {"prepend_bos": True}, transformer=[model], text=[text])


def test_heads_give_rows_of_their_width_together(tmp_path: Path, model: Artifact, text: Artifact) -> None:
    spec = SPEC | {"hook_names": ["blocks.1.attn.hook_z"]}
    result, (rows,), _ = run(KIND, tmp_path, spec, transformer=[model], text=[text])
    assert result.model_dump()["d_model"] == store.load(rows.path).rows.shape[1] == 2 * 8


def test_a_misspelt_hook_is_refused_with_the_nearest(tmp_path: Path, model: Artifact, text: Artifact) -> None:
    spec = SPEC | {"hook_names": ["blocks.1.hook_redis_post"]}
    with pytest.raises(UserError, match=r"the nearest are blocks.1.hook_resid_post"):
        run(KIND, tmp_path, spec, transformer=[model], text=[text])


@pytest.mark.parametrize("change", [{}, {"context": 2}, {"special_tokens": True}])
def test_no_test_row_is_the_copy_of_a_training_row(
    tmp_path: Path, model: Artifact, text: Artifact, change: dict[str, Any]
) -> None:
    for name in ("c.md", "d.md"):
        (tmp_path / "twice").mkdir(exist_ok=True)
        (tmp_path / "twice" / name).write_text(CHAPTER)
    twice = artifact_in(tmp_path / "twice", "upload")
    spec = SPEC | {"hook_names": [HOOKS[1]], "test_fraction": 0.4} | change
    result, (collected,), _ = run(KIND, tmp_path / "rows", spec, transformer=[model], text=[text, twice])
    rows = store.load(collected.path)
    assert torch.cdist(rows.part("test")[:], rows.part("train")[:], compute_mode=EXACT).min() > 1e-4
    assert min(result.model_dump()["rows_by_split"].values()) > 1


def test_a_sequence_lies_in_one_split(collected: Any) -> None:
    rows = store.load(collected[1][0].path)
    assert rows.sequence is not None
    owners = [set(rows.sequence[rows.mask(split)].tolist()) for split in ("train", "validation", "test")]
    assert all(owners)
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert collected[0].rows_by_split == {
        split: int(rows.mask(split).sum()) for split in ("train", "validation", "test")
    }


def test_fewer_rows_are_of_whole_sequences_but_the_last(tmp_path: Path, model: Artifact, text: Artifact) -> None:
    spec = SPEC | {"max_rows": 100, "dtype": "bfloat16", "from_position": 3}
    spec |= {"validation_fraction": 0.25, "test_fraction": 0.25}
    result, artifacts, _ = run(KIND, tmp_path, spec, transformer=[model], text=[text])
    rows = store.load(artifacts[0].path)
    assert isinstance(result, Result)
    assert result.n_rows == len(rows.rows) == 100
    assert rows.place is not None
    assert (int(rows.place.min()), int(rows.place.max())) == (3, 15)
    assert torch.equal(rows.rows[:], rows.rows[:].bfloat16().float())


def test_special_tokens_give_rows_where_asked(tmp_path: Path, model: Artifact, text: Artifact) -> None:
    _, artifacts, _ = run(KIND, tmp_path, SPEC | {"special_tokens": True}, transformer=[model], text=[text])
    rows = store.load(artifacts[0].path)
    assert rows.sequence is not None
    assert int((rows.tokens == 0).sum()) == 1  # all sequences begin with it; padding stays out


def test_equal_specs_give_equal_artifacts(tmp_path: Path, collected: Any, model: Artifact, text: Artifact) -> None:
    again = run(KIND, tmp_path, SPEC, transformer=[model], text=[text])[1]
    assert [item.digest for item in again] == [item.digest for item in collected[1]]


def test_saes_train_on_these_rows(tmp_path: Path, collected: Any) -> None:
    recipe = {"d_sae": 32, "k": 4, "tokens": 4000, "batch_size": 64}
    result, (sae,), _ = run("train.sae", tmp_path, {"recipe": recipe, "seeds": [0]}, activations=[collected[1][0]])
    assert sae.type == "sae"
    assert result.model_dump()["members"][0]["explained_variance"] > 0.3


def test_the_text_that_comes_with_the_package_is_read(tmp_path: Path, model: Artifact) -> None:
    spec = {"source": "language", "context": 32, "max_rows": 2000}
    result, (rows,), _ = run(KIND, tmp_path, spec, transformer=[model])
    assert result.model_dump()["n_rows"] == 2000
    assert len(list(assets.HELD_OUT.glob("*.md"))) == 2
    assert sum(path.stat().st_size for path in assets.HELD_OUT.iterdir()) < 300_000
    assert store.load(rows.path).model_digest == language.load(model.path).digest


def test_a_byte_order_mark_gives_no_row(tmp_path: Path, model: Artifact) -> None:
    counts = set[int]()
    for name, mark in (("plain", b""), ("marked", b"\xef\xbb\xbf")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(mark + CHAPTER.encode())
        words = artifact_in(tmp_path / name, "upload")
        counts.add(
            run(KIND, tmp_path / f"{name}-rows", SPEC, transformer=[model], text=[words])[0].model_dump()["n_rows"]
        )
    assert len(counts) == 1


def test_one_source_of_the_model_is_needed(tmp_path: Path, model: Artifact) -> None:
    with pytest.raises(UserError, match="either model or a transformer"):
        run(KIND, tmp_path, SPEC)
    with pytest.raises(UserError, match="either model or a transformer"):
        run(KIND, tmp_path, SPEC | {"model": "a/model"}, transformer=[model])


def test_too_little_text_is_told(tmp_path: Path, model: Artifact) -> None:
    (tmp_path / "text").mkdir()
    for text in ("the fox", "!" * 1000):
        (tmp_path / "text" / "a.txt").write_text(text)
        with pytest.raises(UserError, match="1 of 1 different sequences"):
            run(KIND, tmp_path / "rows", SPEC, transformer=[model], text=[artifact_in(tmp_path / "text", "upload")])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hook_names": ["a", "a"]}, "distinct"),
        ({"model": "a/model"}, "model is for source language, not model"),
        ({"source": "language", "model": "./my_model"}, "import it with `husai import ./my_model`"),
        ({"source": "language", "model": "/data/my_model"}, "import it with `husai import /data/my_model`"),
        ({"source": "language", "context": 8, "from_position": 8}, "behind the context"),
        ({"source": "synthetic", "hook_names": ["a", "b"]}, "hook_names is for source"),
        ({"hook_name": "a", "hook_names": ["b"]}, "give one of them"),
    ],
)
def test_impossible_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(fields)


def test_a_built_in_text_of_another_domain_is_read_by_its_name(tmp_path: Path, model: Artifact, text: Artifact) -> None:
    spec = {"source": "language", "context": 16, "max_rows": 500}
    (python,) = run(KIND, tmp_path / "python", spec | {"domain": "python"}, transformer=[model])[1]
    upload = tmp_path / "upload"
    upload.mkdir()
    (upload / "python.md").write_bytes(assets.domain("python").read_bytes())
    (sent,) = run(KIND, tmp_path / "sent", spec, transformer=[model], text=[artifact_in(upload, "upload")])[1]
    assert torch.equal(store.load(python.path).rows[:], store.load(sent.path).rows[:])
    with pytest.raises(UserError, match="give either it or the input text"):
        run(KIND, tmp_path / "both", spec | {"domain": "python"}, transformer=[model], text=[text])
    with pytest.raises(ValidationError, match="domain is for source language"):
        Spec.model_validate({"source": "model", "domain": "python"})
