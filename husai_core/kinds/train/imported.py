"""Bring your own: make candidates and artifacts of SAEs, a transformer or cached activations trained elsewhere.

Known layouts:

- `saelens`: SAELens 6, `sae_weights.safetensors` with `cfg.json`; standard, TopK, JumpReLU and gated SAEs, and
  transcoders without skip connection, whose activations need no normalisation;
- `dictionary_learning`: `ae.pt` with `config.json`; standard, gated, TopK, BatchTopK, JumpReLU and Matryoshka SAEs;
- `sparsify`: `sae.safetensors` with `cfg.json`; TopK SAEs and transcoders without skip connection;
- `earlier`: `.pt` files of earlier HUSAI (SAE, transformer, cached activations with their `.meta.pt`);
- `husai`: HUSAI's own artifacts;

and zip files of these, one folder per thing. An imported SAE computes what its own library computes. No file is
unpickled: only tensors and plain values are read.

What a file says about its own training is kept as `claimed` and believed nowhere: an imported SAE has no recipe, so
stresses refuse it. An imported transformer is marked as leaking the label if it says so or fails the leak test.

The earlier position `answer` is the token that already shows the answer. It is imported under its right name,
`answer_token`, and marked as leaking the label, as are the transformers that were trained there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from husai_core.kinds import base

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    from husai_core.saes.formats import Found, Rows, Transformer
    from husai_core.saes.sae import SAE

Thing = Literal["sae", "transformer", "activations"]
Layout = Literal["auto", "husai", "saelens", "dictionary_learning", "sparsify", "earlier"]
Position = Literal["bos", "first_operand", "second_operand", "answer", "answer_token"]

INPUTS = {"file": base.Port("upload", "the uploaded files; files of separate uploads are read together", many=True)}
OUTPUTS = {
    "saes": base.Port("sae", "one checkpoint per SAE found", many=True, required=False),
    "transformer": base.Port("transformer", "the network found", required=False),
    "activations": base.Port("activations", "the rows found", required=False),
}
EARLIER_POSITIONS = {"answer": "answer_token"}
UNKNOWN = dict.fromkeys(("seed", "converged", "model_digest", "activations_digest"))
MOST_P = 1000


class Spec(base.Spec):
    """What to expect, and what the files themselves do not say."""

    format: Layout = Field("auto", description="layout; auto recognises it")
    what: Literal["auto", "sae", "transformer", "activations"] = Field("auto", description="kind of thing expected")
    hook_name: str | None = Field(None, description="TransformerLens hook of an SAE or rows; overrides the file's")
    position: Position | None = Field(None, description="token position; `answer` is `=`; overrides the file's")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of rows without a split, for selection")
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of rows without a split, for reported figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of that split and of the leak test")


class Item(BaseModel):
    """One imported thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="file name")
    format: str
    what: Thing
    architecture: str | None = Field(None, description="as in the checkpoint's cfg.json; TransformerLens for networks")
    d_in: int | None = Field(None, description="width of a row")
    d_sae: int | None = Field(None, description="number of latents")
    k: int | None = Field(None, description="active latents per row")
    n_rows: int | None = None
    hook_name: str | None = None
    position: str | None = None
    notes: list[str] = Field(default_factory=list, description="what was preserved, renamed or is unknown")


class Result(base.Result):
    """What was found, in the order of the outputs."""

    items: list[Item]


def run(spec: Spec, inputs: base.Inputs, job: base.Job) -> Result:
    """Recognise, check and store everything in the upload."""
    import tempfile
    from pathlib import Path

    from husai_core.saes.formats import find

    with tempfile.TemporaryDirectory() as scratch:
        found = find([upload.path for upload in inputs.many("file")], Path(scratch))
        _expected(spec, found)
        return Result(items=[_store(spec, thing, job) for thing in found])


def _expected(spec: Spec, found: list[Found]) -> None:
    for thing in found:
        if spec.format not in ("auto", thing.format):
            raise base.KindError(f"{thing.source} has the layout {thing.format}, not {spec.format}")
        if spec.what not in ("auto", thing.what):
            raise base.KindError(f"{thing.source} holds {thing.what}, not {spec.what}")
    for what in ("transformer", "activations"):
        if sum(thing.what == what for thing in found) > 1:
            raise base.KindError(f"the upload holds more than one {what}; import them one by one")


def _store(spec: Spec, thing: Found, job: base.Job) -> Item:
    from husai_core.saes.formats import Rows, Transformer
    from husai_core.saes.sae import SAE

    job.log(f"{thing.source}: {thing.what} ({thing.format})")
    if isinstance(thing.value, SAE):
        facts = _sae(spec, thing.value, thing.format, job)
    elif isinstance(thing.value, Transformer):
        facts = _transformer(spec, thing.value, job)
    elif isinstance(thing.value, Rows):
        facts = _rows(spec, thing.value, job)
    else:
        facts = _artifact(spec, thing, job)
    return Item(source=thing.source, format=thing.format, what=thing.what, **facts)


def _sae(spec: Spec, sae: SAE, layout: str, job: base.Job) -> dict[str, Any]:
    from husai_core.saes import checkpoint
    from husai_core.saes.formats import plain

    claimed = plain(sae.provenance)
    sae.hook_name = spec.hook_name or sae.hook_name
    position = spec.position or claimed.get("position")
    position = position if isinstance(position, str) else None
    notes = [] if sae.relu_after_topk else ["keeps the k largest signed pre-activations, without ReLU: not for SAELens"]
    notes.append("seed, recipe and convergence are unknown; what the file says of them is a claim")
    known = {"position": position, "hook_name": sae.hook_name, "transcoder": sae.transcoder}
    known |= {"relu_after_topk": sae.relu_after_topk, "imported": True, "layout": layout, "claimed": claimed}
    checkpoint.save(sae, job.output("saes", "sae"), UNKNOWN | known)
    shape = {"d_in": sae.d_in, "d_sae": sae.d_sae, "k": sae.k}
    return shape | {
        "architecture": checkpoint.architecture(sae),
        "hook_name": sae.hook_name,
        "position": position,
        "notes": notes,
    }


def _transformer(spec: Spec, found: Transformer, job: base.Job) -> dict[str, Any]:
    """A network of the earlier layout, checked by loading its weights into TransformerLens."""
    from husai_core.models import modular

    shape = _shape(found.config)
    p = shape["d_vocab"] - 4
    dataset = {"p": p, "train_fraction": None, "seed": None, "position": "answer_token"}
    try:
        model = modular.build(shape, 0)
        own = dict(model.named_parameters())
        missing = own.keys() - found.weights.keys()
        if missing:
            raise base.KindError(f"the network lacks the weights {', '.join(sorted(missing)[:3])}")
        model.load_state_dict({name: found.weights[name] for name in own}, strict=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise base.KindError(f"the network's weights do not fit its config: {reason}") from error
    leak = _leak_test(spec, model, dataset)
    facts = {"dataset": dataset, "leaks_label": True, "leak_test": leak, "imported": True, "claimed": found.notes}
    modular.save(job.output("transformer", "transformer"), model, shape | facts)
    notes = ["trained where its input shows the answer, so it is marked as leaking the label"]
    return {"architecture": "HookedTransformer", "d_in": shape["d_model"], "position": "answer_token", "notes": notes}


def _leak_test(spec: Spec, model: HookedTransformer, dataset: Mapping[str, Any]) -> dict[str, float | bool] | None:
    """The outcome of the leak test, or None for a network that does not read our sequences."""
    from husai_core.data.modular import LENGTH, pairs, vocabulary
    from husai_core.models.training import leak_test

    p, position = dataset["p"], dataset["position"]
    possible = isinstance(p, int) and 2 <= p <= MOST_P and position in ("answer", "answer_token")
    if not possible or model.cfg.d_vocab != vocabulary(p) or model.cfg.n_ctx < LENGTH:
        return None
    return leak_test(model, pairs(p), position, spec.seed)


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    """The TransformerLens fields of an earlier config, whether bare or inside a whole experiment's."""
    from husai_core.models.modular import SHAPE

    inner = config.get("transformer", config)
    names = {"d_vocab": "vocab_size", "n_ctx": "max_seq_len", "act_fn": "activation"}
    shape = {name: inner.get(name, inner.get(names.get(name, name))) for name in SHAPE}
    shape["normalization_type"] = inner.get("normalization_type", "LN")
    if shape["d_head"] is None and shape["d_model"] and shape["n_heads"]:
        shape["d_head"] = shape["d_model"] // shape["n_heads"]
    absent = [name for name, value in shape.items() if value is None and name != "normalization_type"]
    if absent:
        raise base.KindError(f"the network's config lacks {', '.join(absent)}")
    return shape


def _rows(spec: Spec, found: Rows, job: base.Job) -> dict[str, Any]:
    """Rows without a split get one; their tokens and labels are unknown."""
    import torch

    from husai_core.activations import store
    from husai_core.activations.rows import Rows
    from husai_core.data.modular import split

    n, said = len(found.rows), found.facts.get("position")
    position = spec.position or EARLIER_POSITIONS.get(str(said), said) or "unknown"
    layer = found.facts.get("layer")
    hook_name = spec.hook_name or (f"blocks.{layer}.hook_resid_post" if layer is not None else "unknown")
    rows = store.Activations(
        rows=Rows([found.rows]),
        tokens=torch.zeros(n, 0, dtype=torch.int64),
        label=torch.full((n,), -1),
        split=split(n, spec.validation_fraction, spec.test_fraction, spec.seed),
        hook_name=hook_name,
        position=str(position),
        source="imported",
        leaks_label=position == "answer_token",
    )
    store.save(job.output("activations", "activations"), rows)
    facts = {"d_in": rows.rows.shape[1], "n_rows": n, "hook_name": hook_name, "position": str(position)}
    return facts | {"notes": ["tokens and labels are unknown; the split was drawn here"]}


def _artifact(spec: Spec, thing: Found, job: base.Job) -> dict[str, Any]:
    """An artifact of ours, stored again after it was read."""
    from pathlib import Path

    from husai_core.activations import store
    from husai_core.models import modular

    assert isinstance(thing.value, Path)
    try:
        if thing.what == "activations":
            rows = store.load(thing.value)
            store.save(job.output("activations", "activations"), rows)
            n, d = rows.rows.shape
            return {"d_in": d, "n_rows": n, "hook_name": rows.hook_name, "position": rows.position}
        cfg, model = modular.read_config(thing.value), modular.load(thing.value)
        leak = _leak_test(spec, model, cfg["dataset"])
    except (KeyError, TypeError) as error:
        raise base.KindError(f"{thing.source} or its cfg.json lacks {error}") from error
    leaks = bool(cfg.get("leaks_label")) or leak is None or not leak["passed"]
    facts = {"leaks_label": leaks, "leak_test": leak, "imported": True}
    modular.save(job.output("transformer", "transformer"), model, cfg | facts)
    return {"architecture": "HookedTransformer", "d_in": cfg["d_model"], "position": cfg["dataset"]["position"]}
