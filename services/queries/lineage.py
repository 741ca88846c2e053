"""Where a job's inputs come from and where its outputs went."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.accounts import Principal
from services.queries.jobs import visible
from services.tables import ArtifactRow, Execution, Job, Output

MOST = 500
Edge = tuple[str, str, str]


@dataclass(frozen=True)
class Node:
    """A job or an artifact; `label` is its kind or its type."""

    id: str
    type: Literal["job", "artifact"]
    label: str


@dataclass(frozen=True)
class Lineage:
    """A graph; edges are (from, to, role)."""

    nodes: list[Node]
    edges: list[Edge]


def of_job(session: Session, principal: Principal, job: Job) -> Lineage:
    """What led to a job, and what it and its children produced. Somebody else's job shows its kind, not its id."""
    graph = _Graph(session, principal, job)
    pending = {job.execution_id} if job.execution_id else set()
    while pending and len(graph.nodes) < MOST:
        pending = graph.visit(pending)
    edges = [edge for edge in dict.fromkeys(graph.edges) if edge[0] in graph.nodes and edge[1] in graph.nodes]
    return Lineage(list(graph.nodes.values()), edges)


class _Graph:
    """Grows from one job by whole levels, with one query per table and level."""

    def __init__(self, session: Session, principal: Principal, job: Job) -> None:
        self.session, self.principal = session, principal
        self.nodes = {job.id: Node(job.id, "job", job.kind)}
        self.edges: list[Edge] = []
        self.names = {job.execution_id: job.id} if job.execution_id else {}
        self.inside = set(self.names)
        self.visited: set[str] = set()

    def visit(self, ids: Collection[str]) -> set[str]:
        """Add some executions with their inputs, outputs and children; returns the executions to visit next."""
        self.visited |= set(ids)
        executions = self._all(select(Execution).where(Execution.id.in_(ids)))
        outputs = self._all(select(Output).where(Output.execution_id.in_(ids)))
        used = {sha256 for row in executions for digests in row.inputs.values() for sha256 in digests}
        shown = used | {row.sha256 for row in outputs if row.execution_id in self.inside}
        artifacts = self._all(select(ArtifactRow).where(ArtifactRow.sha256.in_(shown)))
        sources = {row.execution_id for row in artifacts if row.sha256 in used and row.execution_id}
        following = sources | self._children(ids)
        seen = visible(self.session, self.principal, following)
        self.names = {id: seen.get(id, f"execution:{id}") for id in following} | self.names
        for row in artifacts:
            self.nodes[row.sha256] = Node(row.sha256, "artifact", row.type)
        for row in executions:
            name = self.names[row.id]
            self.nodes[name] = Node(name, "job", row.kind)
            self.edges += [(sha256, name, port) for port, digests in row.inputs.items() for sha256 in digests]
        self.edges += [(self.names[row.execution_id], row.sha256, row.name) for row in outputs]
        return following - self.visited

    def _children(self, ids: Collection[str]) -> set[str]:
        """The executions of the jobs that studies among `ids` asked for."""
        executions = set()
        for child in self._all(select(Job).where(Job.parent_id.in_(set(ids) & self.inside)).order_by(Job.id)):
            if self.principal.admin or child.owner_id == self.principal.owner_id:
                self.nodes[child.id] = Node(child.id, "job", child.kind)
                self.edges.append((self.names[child.parent_id], child.id, "child"))
                if child.execution_id:
                    self.names.setdefault(child.execution_id, child.id)
                    executions.add(child.execution_id)
        self.inside |= executions
        return executions

    def _all(self, query: Select[Any]) -> list[Any]:
        return list(self.session.scalars(query))
