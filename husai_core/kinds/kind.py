"""What a job kind is: one declared object, `KIND`, at the end of one file below `husai_core.kinds`.

The file's docstring is the kind's help; its first line says what question the kind answers. Heavy libraries are
imported inside functions, so that the API can validate a spec without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from husai_core import panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import ArtifactType, Inputs, Job

QUEUES = {
    "train": "train",
    "data": "train",
    "benchmark": "benchmark",
    "stress": "stress",
    "study": "control",
    "release": "control",
}
"""The queue that carries the kinds of a family."""


class BaseSpec(BaseModel):
    """Base of every job specification: immutable, unknown fields refused, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse a choice of input ports that does not suit this spec; `bound` names those that are given something.

        Raises:
            UserError: it does not.
        """

    def check_facts(self, facts: Facts) -> None:
        """Refuse this spec where what is known about the inputs already shows that the job would fail.

        Of an artifact that does not exist yet little or nothing is known; that is no reason to refuse.

        Raises:
            UserError: what is wrong, and what to do.
        """


@dataclass(frozen=True)
class Port:
    """One named input or output of a kind."""

    type: ArtifactType
    help: str
    many: bool = False
    required: bool = True
    at_least: int = 1


EVERY_JOB = {
    "result": Port("result", "its figures"),
    "manifest": Port("manifest", "what it was made from"),
    "tables": Port("table", "its tables as CSV", required=False),
    "figures": Port("figure", "its figures as SVG", required=False),
}
"""The outputs of every job; the last two only where its result has such panels."""


@dataclass(frozen=True)
class From:
    """A child's input that names a sibling's output (all of its artifacts, or the one at `index`)."""

    child: str
    output: str
    index: int | None = None


@dataclass(frozen=True)
class Child:
    """One job that a study asks for. `name` is unique inside the study.

    `inputs` maps a port to artifact digests, sibling outputs, or a list that mixes both.
    """

    name: str
    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str | From]] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """How a study's child ended. `result` and `outputs` (output name to digests) are empty unless it succeeded."""

    state: str
    reason: str | None = None
    result: Mapping[str, Any] | None = None
    outputs: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Work(BaseModel):
    """What a job will take: `units` of work (multiply-adds), peak memory and bytes written.

    `at_most` says that it may stop before it has done all the units, as a training at its goal does.
    `outputs` holds, by output port, what is known beforehand about the artifacts (such as `d_model` and `n_rows`), so
    that jobs which take them can be estimated too; `result` holds what is known of the result, so that a study can say
    what it will plan next.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    units: float = 0.0
    at_most: bool = False
    memory_bytes: float = 0.0
    written_bytes: float = 0.0
    outputs: dict[str, dict[str, Any]] = {}
    result: dict[str, Any] = {}


Facts = Mapping[str, Sequence[Mapping[str, Any]]]
"""By input port, what is known about each artifact bound to it: its `cfg.json`, or what an estimate foretells."""


@dataclass(frozen=True)
class Kind:
    """A job kind. Its file declares all but `name`, `help` and `module`, which the registry fills in.

    A kind either runs (`run`) or is a study, which plans child jobs (`plan`, called at submission and whenever all its
    children have ended, until it plans no more) and sums them up (`summarise`).

    Args:
        children: kinds that a study may ask for. They are followed transitively for code digests and scopes.
        libraries: distributions whose versions decide the figures, besides the common numerical ones.
        estimate: from a spec, and what is known about its inputs, to the work that a job will be.
        assets: from a spec to the names of what a job reads beside its inputs (see `husai_core.assets`).
        present: from a result to what there is to see of it.
        statistics: what a release policy can read of a result, an `Evidence`: the names in its `statistics`, each with
            the least and the largest value that it can take.
        time_limit: seconds that one attempt may run.
        progress_timeout: seconds without progress after which an attempt is killed.
    """

    spec: type[BaseSpec]
    result: type[BaseResult]
    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)
    run: Callable[[Any, Inputs, Job], BaseResult] | None = None
    plan: Callable[[Any, Mapping[str, list[str]], Mapping[str, Done]], list[Child]] | None = None
    summarise: Callable[[Any, Inputs, Mapping[str, Done], Job], BaseResult] | None = None
    children: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    estimate: Callable[[Any, Facts], Work] | None = None
    assets: Callable[[Any], Sequence[str]] | None = None
    present: Callable[[Any], Sequence[panels.AnyPanel]] | None = None
    statistics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    time_limit: float = 86_400
    progress_timeout: float = 900
    name: str = ""
    help: str = ""
    module: str = ""

    @property
    def queue(self) -> str:
        """The queue that carries this kind's jobs."""
        return QUEUES[self.name.split(".")[0]]

    @property
    def all_outputs(self) -> Mapping[str, Port]:
        """What a job of this kind can be asked for: its output ports, and what every job writes."""
        return {**self.outputs, **EVERY_JOB}

    @property
    def is_study(self) -> bool:
        """True when the kind plans child jobs."""
        return self.plan is not None

    def execute(self, spec: BaseSpec, inputs: Inputs, job: Job) -> BaseResult:
        """Run a job that is no study.

        Raises:
            UserError: the request cannot be met; or the kind is a study.
        """
        if self.run is None:
            raise UserError(f"{self.name} is a study: it runs as child jobs")
        return self.run(spec, inputs, job)

    def next_children(self, spec: BaseSpec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
        """What a study plans next; nothing when it can be summed up, or is no study."""
        return self.plan(spec, inputs, done) if self.plan else []

    def sum_up(self, spec: BaseSpec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> BaseResult:
        """The result of a study whose children have ended.

        Raises:
            UserError: the children do not allow one; or the kind is no study.
        """
        if self.summarise is None:
            raise UserError(f"{self.name} is no study: it has no children to sum up")
        return self.summarise(spec, inputs, done, job)

    def panels(self, document: Mapping[str, Any]) -> list[panels.AnyPanel]:
        """What there is to see of a result document; of one that an earlier version wrote, at least its figures."""
        try:
            result = self.result.model_validate(document)
        except ValidationError:
            return list(panels.plain(dict(document)))
        return list(self.present(result) if self.present else panels.plain(result.model_dump(mode="json")))
