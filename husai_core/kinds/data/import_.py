"""Bring your own: make candidates and artifacts of SAEs, a transformer or cached activations trained elsewhere.

Known layouts:

- `saelens`: SAELens, `sae_weights.safetensors` with `cfg.json`; standard, TopK, JumpReLU and gated SAEs, and
  transcoders without skip connection, whose activations need no normalisation;
- `dictionary_learning`: `ae.pt` with `config.json`, and the dictionaries of single steps in `checkpoints/`; standard,
  gated, TopK, BatchTopK, JumpReLU and Matryoshka SAEs;
- `sparsify`: `sae.safetensors` with `cfg.json`; TopK SAEs and transcoders without skip connection;
- `huggingface`: the folder of a language model, `config.json`, `tokenizer.json` and `model.safetensors`;
- `earlier`: `.pt` files of earlier HUSAI (SAE, transformer, cached activations with their `.meta.pt`);
- `husai`: HUSAI's own artifacts;

one folder per thing, also in zip files. `saelens` names public SAEs of SAELens' registry in place of files: they are
read from the worker's mirror or Hugging Face cache, and the job is blocked with the list of files that are not there.
An imported SAE computes what its own library computes. No file is unpickled: only tensors and plain values are read.
What trainers leave beside the weights (states of optimisers, logs), and what systems put into folders and archives, is
left out, and the result names it.

What a file says about its own making is kept as `claimed` and believed nowhere. Where it says how an SAE was trained,
that is read as `claimed_recipe`, in the fields of train.sae's recipe, and a stress trains its controls by it unless its
spec names another; where it says too little, a stress asks for a recipe. An imported SAE may have seen the rows of any
split. SAEs that are imported together are siblings where they claim the same training.
Imported rows come from no known network. An imported transformer is marked as leaking the label if it says so or fails
the leak test; rows, if they say so or were read at the answer token.

The earlier position `answer` is the token that already shows the answer. It is imported under its right name,
`answer_token`, and marked as leaking the label, as are the transformers that were trained there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from husai_core import assets, panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import work
from husai_core.kinds.kind import BaseSpec, Facts, Kind, Port, Work

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformer_lens import HookedTransformer

    from husai_core.activations.store import Activations
    from husai_core.importers import BareRows, Imported, LanguageFiles, ModularWeights
    from husai_core.saes.sae import SAE

Thing = Literal["sae", "transformer", "activations"]
Layout = Literal["auto", "husai", "saelens", "dictionary_learning", "sparsify", "huggingface", "earlier"]
RegistryName = Annotated[str, Field(max_length=200), AfterValidator(assets.registry_name)]
Position = Literal["bos", "first_operand", "second_operand", "answer", "answer_token"]

INPUTS = {
    "file": Port("upload", "the uploaded files, read together; none if `saelens` names SAEs", True, required=False)
}
OUTPUTS = {
    "saes": Port("sae", "one checkpoint per SAE found", many=True, required=False),
    "transformer": Port("transformer", "the network found", required=False),
    "activations": Port("activations", "the rows found", required=False),
}
TRAINING_UNKNOWN = "its training is unknown; what the file says of it is a claim"
UNKNOWN = dict.fromkeys(("seed", "converged", "model_digest", "activations_digest"))
MOST_P = 1000
EITHER = "an import takes either files or `saelens: [RELEASE/SAE_ID, ...]`"


class Spec(BaseSpec):
    """What to expect, and what the files themselves do not say."""

    format: Layout = Field("auto", description="layout; auto recognises it")
    what: Literal["auto", "sae", "transformer", "activations"] = Field("auto", description="kind of thing expected")
    saelens: list[RegistryName] = Field(
        [], max_length=64, description="SAEs of SAELens' registry as RELEASE/SAE_ID, in place of files"
    )
    hook_name: str | None = Field(None, description="TransformerLens hook of an SAE or rows; overrides the file's")
    position: Position | None = Field(None, description="token position; `answer` is `=`; overrides the file's")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of rows without a split, for selection")
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of rows without a split, for reported figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of that split and of the leak test")

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse a request for files and public SAEs at once."""
        if self.saelens and bound:
            raise UserError(EITHER)


class Item(BaseModel):
    """One imported thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="folder and name of its first file")
    format: str
    what: Thing
    architecture: str | None = Field(None, description="as in the checkpoint's cfg.json; TransformerLens for networks")
    d_in: int | None = Field(None, description="width of a row")
    d_sae: int | None = Field(None, description="number of latents")
    k: int | None = Field(None, description="active latents per row")
    n_rows: int | None = None
    hook_name: str | None = None
    position: str | None = None
    claimed_recipe: dict[str, Any] = Field(
        default_factory=dict, description="how the files say that an SAE was trained, in the fields of a recipe"
    )
    notes: list[str] = Field(default_factory=list, description="what was preserved, renamed or is unknown")


class Result(BaseResult):
    """What was found, in the order of the outputs."""

    items: list[Item]
    left_out: list[str] = Field([], description="files that were not read: they say nothing about what was imported")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Recognise, check and store everything in the upload."""
    import tempfile
    from pathlib import Path

    from husai_core.importers import find, registry

    if not spec.saelens and not inputs.bound:
        raise UserError(EITHER)
    with tempfile.TemporaryDirectory() as scratch:
        uploads = [upload.path for upload in inputs.many("file")]
        public = registry.read(spec.saelens, Path(scratch)) if spec.saelens else None
        contents = public or find(uploads, Path(scratch))
        _expected(spec, contents.things)
        if contents.left_out:
            job.log(f"left out: {', '.join(contents.left_out)}")
        items = [_store(spec, thing, job) for thing in contents.things]
        return Result(items=items, left_out=contents.left_out)


def _expected(spec: Spec, things: list[Imported]) -> None:
    for thing in things:
        if spec.format not in ("auto", thing.format):
            raise UserError(f"{thing.source} has the layout {thing.format}, not {spec.format}")
        if spec.what not in ("auto", thing.what):
            raise UserError(f"{thing.source} holds {thing.what}, not {spec.what}")
    for what in ("transformer", "activations"):
        if sum(thing.what == what for thing in things) > 1:
            raise UserError(f"the upload holds more than one {what}; import them one by one")


def _store(spec: Spec, thing: Imported, job: Job) -> Item:
    from husai_core.importers import BareRows, LanguageFiles, ModularWeights
    from husai_core.saes.sae import SAE

    job.log(f"{thing.source}: {thing.what} ({thing.format})")
    if isinstance(thing.value, SAE):
        facts = _sae(spec, thing.value, thing, job)
    elif isinstance(thing.value, ModularWeights):
        facts = _modular(spec, thing.value, thing.claimed, job)
    elif isinstance(thing.value, LanguageFiles):
        facts = _language(thing.value, thing.claimed, job)
    elif isinstance(thing.value, BareRows):
        facts = _activations(spec, _split(spec, thing.value), thing.claimed, job)
        facts["notes"].append("tokens and labels are unknown; the split was drawn here")
    else:
        facts = _activations(spec, thing.value, thing.claimed, job)
    facts["notes"] = [*thing.notes, *facts["notes"]]
    return Item(source=thing.source, format=thing.format, what=thing.what, **facts)


def _sae(spec: Spec, sae: SAE, thing: Imported, job: Job) -> dict[str, Any]:
    from husai_core.importers import plain
    from husai_core.saes import checkpoint

    claimed = plain(sae.provenance)
    sae.hook_name = spec.hook_name or sae.hook_name
    position = spec.position or claimed.get("position")
    position = position if isinstance(position, str) else None
    notes = [] if sae.relu_after_topk else ["keeps the k largest signed pre-activations, without ReLU: not for SAELens"]
    notes += [*thing.training.notes, *_too_little(thing.training.recipe)]
    notes.append("seed, recipe and convergence are unknown; what the file says of them is a claim")
    known = {"position": position, "hook_name": sae.hook_name, "transcoder": sae.transcoder}
    known |= {"relu_after_topk": sae.relu_after_topk, "imported": True, "layout": thing.format, "claimed": claimed}
    known |= {f"claimed_{name}": getattr(thing.training, name) for name in ("recipe", "seed", "step")}
    if thing.half is not None:
        notes.append("with its half, which the file says is the same training at half the tokens")
        of_half = {"claimed": plain(thing.half.provenance)}
        thing.half.hook_name, thing.half.provenance = sae.hook_name, UNKNOWN | known | of_half
    checkpoint.save(sae, job.output("saes", "sae"), UNKNOWN | known, thing.half)
    shape = {"d_in": sae.d_in, "d_sae": sae.d_sae, "k": sae.k}
    return shape | {
        "architecture": checkpoint.architecture(sae),
        "hook_name": sae.hook_name,
        "position": position,
        "claimed_recipe": thing.training.recipe,
        "notes": notes,
    }


def _too_little(recipe: dict[str, Any]) -> list[str]:
    """What a claimed recipe lacks, where there is one at all."""
    from husai_core.saes.recipe import unsaid

    lacking = unsaid(recipe) if recipe else []
    return [f"its files do not say {', '.join(lacking)}, so a stress needs a recipe from its user"] if lacking else []


def _modular(spec: Spec, network: ModularWeights, claimed: dict[str, Any], job: Job) -> dict[str, Any]:
    """A network whose weights fit it; its dataset is what its vocabulary says."""
    from husai_core.data.modular import vocabulary
    from husai_core.models import modular

    model = modular.build(network.config, 0)
    model.load_state_dict(network.weights, strict=False)  # masks are not in the file
    p = model.cfg.d_vocab - vocabulary(0)
    leak = _leak_test(spec, model, p, network.position)
    leaks = network.leaks_label or leak is None or not leak["passed"]
    dataset = {"p": p, "train_fraction": None, "seed": None, "position": network.position}
    facts = {"dataset": dataset, "leaks_label": leaks, "leak_test": leak, "imported": True, "claimed": claimed}
    modular.save(job.output("transformer", "transformer"), model, network.config | facts)
    notes = [TRAINING_UNKNOWN]
    if leaks:
        notes.append("its input may have shown the answer, so it is marked as leaking the label")
    shape = {"architecture": "HookedTransformer", "d_in": model.cfg.d_model}
    return shape | {"position": network.position, "notes": notes}


def _language(files: LanguageFiles, claimed: dict[str, Any], job: Job) -> dict[str, Any]:
    """A language model that can be loaded, with its files as they are."""
    import shutil

    from husai_core.identity import canonical
    from husai_core.models import language

    directory = job.output("transformer", "transformer")
    for name, path in files.files.items():
        shutil.copyfile(path, directory / name)
    language.check(directory)
    model = language.load(directory)
    facts = {"architecture": files.architecture, "leaks_label": False, "imported": True, "claimed": claimed}
    (directory / "cfg.json").write_bytes(canonical(facts))
    notes = [TRAINING_UNKNOWN]
    if model.bos is None:
        notes.append("its tokeniser has no beginning-of-sequence token, so none is put before the sequences it reads")
    return {"architecture": files.architecture, "d_in": model.d_model, "notes": notes}


def _leak_test(spec: Spec, model: HookedTransformer, p: int, position: str) -> dict[str, float | bool] | None:
    """The outcome of the leak test, or None for a network that does not read our sequences."""
    from husai_core.data.modular import LENGTH, pairs
    from husai_core.models.training import leak_test

    if not 2 <= p <= MOST_P or model.cfg.n_ctx < LENGTH:
        return None
    return leak_test(model, pairs(p), position, spec.seed)


def _split(spec: Spec, bare: BareRows) -> Activations:
    """Rows with a split of ours, without tokens and labels."""
    import torch

    from husai_core.activations import rows, store
    from husai_core.data.modular import split

    n = len(bare.rows)
    return store.Activations(
        rows=rows.StoredRows([bare.rows]),
        tokens=torch.zeros(n, 0, dtype=torch.int64),
        label=torch.full((n,), -1),
        split=split(n, spec.validation_fraction, spec.test_fraction, spec.seed),
        hook_name="unknown" if bare.layer is None else f"blocks.{bare.layer}.hook_resid_post",
        position=bare.position or "unknown",
        source="imported",
    )


def _activations(spec: Spec, stored: Activations, claimed: dict[str, Any], job: Job) -> dict[str, Any]:
    """Rows in the type that they came in, of no known network."""
    from dataclasses import replace

    from husai_core.activations import store

    hook_name, position = spec.hook_name or stored.hook_name, spec.position or stored.position
    leaks = stored.leaks_label or "answer_token" in (stored.position, position)
    facts: dict[str, Any] = dict.fromkeys(("model_digest", "p", "model", "context", "tokenizer_digest"))
    facts |= {"hook_name": hook_name, "position": position, "source": "imported", "leaks_label": leaks}
    rows = replace(stored, **facts)
    store.save(job.output("activations", "activations"), rows, stored.rows.shards[0].dtype, claimed)
    n, d = rows.rows.shape
    notes = ["which network gave them is unknown; what the file says of it is a claim"]
    return {"d_in": d, "n_rows": n, "hook_name": hook_name, "position": position, "notes": notes}


NAMES = {"sae": "SAE", "transformer": "transformer", "activations": "set of activations"}
LAYOUT_NAMES = {
    "saelens": "SAELens",
    "huggingface": "a language model in the Hugging Face layout",
    "earlier": "a .pt file of the earlier HUSAI",
    "husai": "an artifact of HUSAI",
}
PORTS = {"sae": "saes", "transformer": "transformer", "activations": "activations"}


def present(result: Result) -> list[panels.AnyPanel]:
    """What each thing is, under the output by which other jobs name it, where it came from, and what is unknown."""
    counts = {what: sum(item.what == what for item in result.items) for what in NAMES}
    named = [
        f"{count} {NAMES[what]}{'s' * (count > 1 and what != 'activations')}" for what, count in counts.items() if count
    ]
    text = f"Imported: {', '.join(named) or 'nothing'}. What the files say of their own making is kept as a claim."
    places = _places(result.items)
    origins = [
        f"{place}: from {item.source} ({LAYOUT_NAMES.get(item.format, item.format)}). {_sentences(item.notes)}".rstrip()
        for place, item in zip(places, result.items, strict=True)
    ]
    if result.left_out:
        origins.append(f"Not read, since it says nothing about these: {', '.join(result.left_out)}.")
    return [
        panels.Headline(text=text),
        _shapes(places, result.items),
        *_recipes(places, result.items),
        panels.Text(title="Where it comes from, and what is not known of it", paragraphs=origins),
    ]


def _places(items: Sequence[Item]) -> list[str]:
    """The output that holds each thing, with its index where there are several."""
    places = []
    for i, item in enumerate(items):
        before = sum(other.what == item.what for other in items[:i])
        several = sum(other.what == item.what for other in items) > 1
        places.append(f"{PORTS[item.what]}:{before}" if several else PORTS[item.what])
    return places


def _shapes(places: Sequence[str], items: Sequence[Item]) -> panels.Table:
    """One thing a row; columns that say nothing are left out."""
    fields = {
        "architecture": "architecture",
        "d_in": "width",
        "d_sae": "latents",
        "k": "k",
        "n_rows": "rows",
        "hook_name": "hook",
        "position": "position",
    }
    shown = {name: label for name, label in fields.items() if any(getattr(item, name) is not None for item in items)}
    rows: list[list[panels.Cell]] = [
        [place, *("" if (value := getattr(item, name)) is None else value for name in shown)]
        for place, item in zip(places, items, strict=True)
    ]
    columns = [panels.Column(label=label, format="text") for label in ("output", *shown.values())]
    return panels.Table(title="What was imported", columns=columns, rows=rows)


def _recipes(places: Sequence[str], items: Sequence[Item]) -> list[panels.Table]:
    """How the SAEs were trained by their files' account, one field a row; nothing where no file says."""
    said = [(place, item.claimed_recipe) for place, item in zip(places, items, strict=True) if item.claimed_recipe]
    names = list(dict.fromkeys(name for _, recipe in said for name in recipe))
    if not said:
        return []
    rows: list[list[panels.Cell]] = [[name, *(_cell(recipe.get(name, "")) for _, recipe in said)] for name in names]
    columns = [panels.Column(label="field"), *(panels.Column(label=place) for place, _ in said)]
    return [panels.Table(title="How the files say that the SAEs were trained", columns=columns, rows=rows)]


def _cell(value: Any) -> panels.Cell:
    return value if isinstance(value, int | float | str) else str(value)


def _sentences(notes: Sequence[str]) -> str:
    """Notes as sentences."""
    return " ".join(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes)


def estimate(spec: Spec, facts: Facts) -> Work:
    """Reading and writing what was uploaded, as far as its size is known."""
    size = float(sum(fact.get("size") or 0 for fact in facts.get("file", ())))
    return work.Cost(size, 2 * size).work(size)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run=run,
    libraries=("sae-lens",),
    estimate=estimate,
    present=present,
)
