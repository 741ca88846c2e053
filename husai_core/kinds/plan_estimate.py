"""What a study will take: the work of all the jobs that it plans, each by its own kind's estimate.

The outputs that one child's estimate foretells are what is known about its siblings' inputs. A study that plans in
rounds is asked for the next one as if all children had succeeded, with nothing in their results but what an estimate
foretells: where a later round depends on more, it is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from husai_core import kinds
from husai_core.errors import UserError
from husai_core.kinds.kind import BaseSpec, Child, Done, Facts, From, Work

Plan = Callable[[Any, Mapping[str, list[str]], Mapping[str, Done]], list[Child]]
MOST_ROUNDS = 8


@dataclass(frozen=True)
class PlannedJob:
    """One job that runs; `path` names it inside the study, and a study inside it, as in `gate/good-saes`.

    `child` is the first name of the path: which child of the study it is, or belongs to.
    """

    path: str
    kind: str
    work: Work
    child: str = ""


@dataclass(frozen=True)
class Planned:
    """The jobs that are known beforehand, and whether more may follow that depend on results."""

    jobs: list[PlannedJob]
    more: bool = False


def jobs(kind: str, spec: BaseSpec | Mapping[str, Any], facts: Facts) -> Planned:
    """Every job that a request of a kind will run, with its work; one that is no study is one job.

    Raises:
        KeyError: no kind has this name.
        ValidationError: the spec is none of this kind.
        UserError: what is known about the inputs rules out the spec, or that of a child.
    """
    declared = kinds.get(kind)
    parsed = spec if isinstance(spec, BaseSpec) else declared.spec.model_validate(spec)
    parsed.check_facts(facts)
    if declared.plan is None:
        return Planned([PlannedJob("", kind, declared.estimate(parsed, facts) if declared.estimate else Work())])
    return _planned(declared.plan, parsed, facts)


def study(plan: Plan, spec: Any, facts: Facts) -> Work:
    """The work of a study as a whole: the sum of its jobs', and the largest memory of any."""
    works = [job.work for job in _planned(plan, spec, facts).jobs]
    return Work(
        units=sum(work.units for work in works),
        at_most=any(work.at_most for work in works),
        memory_bytes=max((work.memory_bytes for work in works), default=0.0),
        written_bytes=sum(work.written_bytes for work in works),
    )


def _planned(plan: Plan, spec: Any, facts: Facts) -> Planned:
    """The jobs of a study. What is bound to its ports stands under names in place of digests, which are not known."""
    known = _Known()
    inputs = {port: [known.name(f"{port}:{i}", fact) for i, fact in enumerate(of)] for port, of in facts.items()}
    first = _round(plan(spec, inputs, {}), known)
    planned, more = list(first.jobs), first.more
    for _ in range(MOST_ROUNDS):
        try:
            later = _round([child for child in plan(spec, inputs, known.done) if child.name not in known.done], known)
        except Exception:  # a plan may read any figure of a result, and there are none
            return Planned(planned, more=True)
        if not later.jobs:
            return Planned(planned, more)
        planned, more = [*planned, *later.jobs], more or later.more
    return Planned(planned, more=True)


def _round(children: Sequence[Child], known: _Known) -> Planned:
    """The jobs of one round; what they will make becomes known."""
    planned, more = list[PlannedJob](), False
    for child in _in_order(children):
        bound = {port: known.facts(sources) for port, sources in child.inputs.items()}
        try:
            below = jobs(child.kind, child.spec, bound)
        except UserError as wrong:
            raise UserError(f"{child.name}: {wrong}") from wrong
        planned += [
            PlannedJob(f"{child.name}/{job.path}" if job.path else child.name, job.kind, job.work, child.name)
            for job in below.jobs
        ]
        more = more or below.more
        known.end(child, below.jobs[-1].work if len(below.jobs) == 1 else Work())
    return Planned(planned, more)


def _in_order(children: Sequence[Child]) -> list[Child]:
    """Children so that each comes behind those whose outputs it takes; what no order suits comes last."""
    pending, ordered = list(children), list[Child]()
    while pending:
        placed = {child.name for child in ordered}
        ready = [child for child in pending if _needed(child) <= placed] or pending
        ordered += ready
        pending = [child for child in pending if child not in ready]
    return ordered


def _needed(child: Child) -> set[str]:
    return {source.child for sources in child.inputs.values() for source in sources if isinstance(source, From)}


@dataclass
class _Known:
    """What is known about artifacts: those bound to the study by name, and what its children will make."""

    bound: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)

    def end(self, child: Child, work: Work) -> None:
        """Take a child for one that has succeeded, with what is known about its outputs, under names for digests."""
        self.outputs[child.name] = work.outputs
        facts = {port: self.facts([From(child.name, port)]) for port in kinds.get(child.kind).all_outputs}
        digests = {
            port: [self.name(f"{child.name}.{port}:{i}", fact) for i, fact in enumerate(of)]
            for port, of in facts.items()
        }
        self.done[child.name] = Done("succeeded", None, work.result, digests)

    def name(self, name: str, fact: Mapping[str, Any]) -> str:
        """Remember a fact under a name."""
        self.bound[name] = fact
        return name

    def facts(self, sources: Sequence[str | From]) -> list[Mapping[str, Any]]:
        """The facts about each artifact of an input; those of an output of `count` artifacts are alike."""
        facts: list[Mapping[str, Any]] = []
        for source in sources:
            if isinstance(source, str):
                facts.append(self.bound.get(source, {}))
                continue
            output = self.outputs.get(source.child, {}).get(source.output, {})
            facts += [output] * (1 if source.index is not None else int(output.get("count", 1)))
        return facts
