"""What the words of `husai check` mean, and the artifacts that they stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from husai.errors import Refused, Usage
from husai.imports import collected, registry_names, send, submit_import

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Candidate, Job
    from husai.terminal import Terminal

DIGEST = re.compile(r"[0-9a-f]{8,64}")
TEXTS = (".txt", ".md")
PATHS = (".", "/", "~")
"""How the name of a folder may begin, and that of a model never does."""
READ_ALIKE = (
    "domain", "context", "prepend_bos", "max_rows", "from_position", "special_tokens", "dtype", "validation_fraction",
    "test_fraction", "seed",
)  # fmt: skip
"""The fields of train.activations that decide which tokens are read, and their split."""
Inputs = dict[str, list[Any]]


@dataclass(frozen=True)
class Request:
    """What was asked for: SAEs as files, as names of SAELens' registry or as digests; the model and texts."""

    sae_files: Mapping[str, Path]
    public: Sequence[str]
    digests: Sequence[str]
    model: str | None
    model_files: Mapping[str, Path]
    texts: Mapping[str, Path]
    shifted: Sequence[Mapping[str, Path]]
    hook_name: str | None


def request(
    saes: Sequence[str],
    model: str | None,
    texts: Sequence[Path],
    shifted: Sequence[Path],
    hook_name: str | None,
    terminal: Terminal,
) -> Request:
    """Tell files, names and digests apart. Texts among the SAEs are what a shell makes of `--text TEXTS/*.txt`.

    Raises:
        Usage: there is no SAE, a file is not there, or SAEs come in several ways.
    """
    places = [Path(word) for word in saes]
    stray = [place for place in places if place.suffix in TEXTS and place.is_file()]
    places = [place for place in places if place not in stray]
    if not places:
        raise Usage(f"{stray[0]} is a text; name at least one SAE" if stray else "name at least one SAE")
    digests = [str(place) for place in places if not place.exists() and DIGEST.fullmatch(str(place))]
    if digests and len(digests) < len(places):
        raise Usage("name all SAEs by files, or all by their SHA-256; `husai import` makes SAEs of files")
    public = [] if digests else registry_names(places)
    folder = bool(model) and Path(str(model)).is_dir()
    if model and model.startswith(PATHS) and not folder:
        raise Usage(f"there is no folder {model}")
    return Request(
        sae_files={} if digests or public else collected(places, terminal),
        public=public,
        digests=digests,
        model=None if folder else model,
        model_files=collected([Path(str(model))], terminal) if folder else {},
        texts=collected([*texts, *stray], terminal) if texts or stray else {},
        shifted=[collected([place], terminal) for place in shifted],
        hook_name=hook_name,
    )


def refuse_early(husai: Husai, request: Request, spec: Mapping[str, Any]) -> None:
    """Refuse fields of study.check that are wrong whatever the SAEs are, before anything is sent.

    Raises:
        Refused: a field, the recipe, the policy or the model's name.
    """
    named = {} if request.model is None or DIGEST.fullmatch(request.model) else {"model": request.model}
    try:
        husai.plan("study.check", named | dict(spec))
    except Refused as error:
        if error.slug != "missing-input":
            raise


def imports(husai: Husai, request: Request, terminal: Terminal) -> dict[str, Job]:
    """The imports of what came as files or as public names, by what they bring: `saes` or `transformer`."""
    jobs: dict[str, Job] = {}
    if request.sae_files or request.public:
        spec = {"what": "sae", "hook_name": request.hook_name, "saelens": request.public or None}
        spec = {name: value for name, value in spec.items() if value is not None}
        jobs["saes"] = submit_import(husai, request.sae_files, spec, terminal)
    if request.model_files:
        jobs["transformer"] = submit_import(husai, request.model_files, {"what": "transformer"}, terminal)
    return jobs


def study(
    husai: Husai, request: Request, imports: Mapping[str, Job], terminal: Terminal
) -> tuple[dict[str, Any], Inputs]:
    """The fields and inputs of study.check that follow from the request and what was imported.

    Raises:
        Usage: nothing says which network the SAEs read.
    """
    digests = imports["saes"].outputs["saes"] if "saes" in imports else request.digests
    candidates = [husai.candidate(digest) for digest in digests]
    fields, inputs = _origin(husai, candidates[0])
    if request.model or "transformer" in imports:
        fields.pop("model", None)
        inputs.pop("transformer", None)
    if "transformer" in imports:
        inputs["transformer"] = imports["transformer"].outputs["transformer"]
    elif request.model and DIGEST.fullmatch(request.model):
        inputs["transformer"] = [request.model]
    elif request.model:
        fields["model"] = request.model
    if "model" not in fields and "transformer" not in inputs:
        raise Usage("say which network the SAEs read: --model NAME, a folder or a SHA-256")
    if request.texts:
        inputs["text"] = [send(husai, request.texts, terminal).sha256]
    if request.shifted:
        inputs["shifted_text"] = [send(husai, domain, terminal).sha256 for domain in request.shifted]
    return fields, {"saes": [candidate.sha256 for candidate in candidates], **inputs}


def _origin(husai: Husai, candidate: Candidate) -> tuple[dict[str, Any], Inputs]:
    """What an SAE's own making says about its check: the hook, and of one trained here the rows and their network."""
    fields: dict[str, Any] = {"hook_name": candidate.hook_name} if candidate.hook_name else {}
    training = husai.job(candidate.job) if candidate.job else None
    if training is None or "activations" not in training.inputs:
        return fields, {}
    inputs: Inputs = {"activations": list(training.inputs["activations"])}
    if not training.sources:
        return fields, inputs
    reading = husai.job(training.sources[0])
    if reading.spec.get("source") in ("model", "language"):
        fields["source"] = reading.spec["source"]
        inputs |= {port: list(reading.inputs[port]) for port in ("transformer", "text") if reading.inputs.get(port)}
    if reading.spec.get("source") == "language":
        fields["reading"] = {name: reading.spec[name] for name in READ_ALIKE if name in reading.spec}
    return fields | ({"model": reading.spec["model"]} if reading.spec.get("model") else {}), inputs
