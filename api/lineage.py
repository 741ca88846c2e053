"""Where a job's inputs come from and where its outputs went."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api import schemas
from api.serializers import visible_jobs
from services.accounts import Principal
from services.tables import ArtifactRow, Execution, Job, Output

MOST = 500


def lineage(session: Session, principal: Principal, job: Job) -> schemas.Lineage:
    """What led to a job, and what it and its children produced. Somebody else's job shows its kind, not its id."""
    graph = _Graph(session, principal, job)
    pending = {job.execution_id} if job.execution_id else set()
    while pending and len(graph.nodes) < MOST:
        pending = graph.visit(pending)
    edges = [edge for edge in dict.fromkeys(graph.edges) if edge[0] in graph.nodes and edge[1] in graph.nodes]
    return schemas.Lineage(nodes=list(graph.nodes.values()), edges=edges)


class _Graph:
    """Grows from one job by whole levels, with one query per table and level."""

    def __init__(self, session: Session, principal: Principal, job: Job) -> None:
        self.session, self.principal = session, principal
        self.nodes = {job.id: schemas.Node(id=job.id, type="job", label=job.kind)}
        self.edges: list[tuple[str, str, str]] = []
        self.names = {job.execution_id: job.id} if job.execution_id else {}
        self.inside = set(self.names)
        self.visited: set[str] = set()

    def visit(self, ids: Collection[str]) -> set[str]:
        """Add some executions with their inputs, outputs and children; returns the executions to visit next."""
        self.visited |= set(ids)
        executions = self._all(select(Execution).where(Execution.id.in_(ids)))
        outputs = self._all(select(Output).where(Output.execution_id.in_(ids)))
        used = {sha256 for one in executions for digests in one.inputs.values() for sha256 in digests}
        shown = used | {one.sha256 for one in outputs if one.execution_id in self.inside}
        artifacts = self._all(select(ArtifactRow).where(ArtifactRow.sha256.in_(shown)))
        sources = {one.execution_id for one in artifacts if one.sha256 in used and one.execution_id}
        following = sources | self._children(ids)
        seen = visible_jobs(self.session, self.principal, following)
        self.names = {one: seen.get(one, f"execution:{one}") for one in following} | self.names
        for one in artifacts:
            self.nodes[one.sha256] = schemas.Node(id=one.sha256, type="artifact", label=one.type)
        for one in executions:
            name = self.names[one.id]
            self.nodes[name] = schemas.Node(id=name, type="job", label=one.kind)
            self.edges += [(sha256, name, port) for port, digests in one.inputs.items() for sha256 in digests]
        self.edges += [(self.names[one.execution_id], one.sha256, one.name) for one in outputs]
        return following - self.visited

    def _children(self, ids: Collection[str]) -> set[str]:
        """The executions of the jobs that studies among `ids` asked for."""
        found = set()
        for child in self._all(select(Job).where(Job.parent_id.in_(set(ids) & self.inside)).order_by(Job.id)):
            if self.principal.admin or child.owner_id == self.principal.owner_id:
                self.nodes[child.id] = schemas.Node(id=child.id, type="job", label=child.kind)
                self.edges.append((self.names[child.parent_id], child.id, "child"))
                if child.execution_id:
                    self.names.setdefault(child.execution_id, child.id)
                    found.add(child.execution_id)
        self.inside |= found
        return found

    def _all(self, query: Select[Any]) -> list[Any]:
        return list(self.session.scalars(query))
