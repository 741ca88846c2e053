"""The typed Python client.

>>> husai = Husai("http://127.0.0.1:8765", key)
>>> job = husai.wait(husai.submit("study.pipeline", {"preset": "demo"}).id)
>>> job.result["verdict"]
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from husai import files, sse
from husai.errors import Mismatch, Refused, TimedOut, Usage
from husai.models import FINAL, Artifact, Candidate, Decision, Document, Event, Job, Key, Kind, Plan, Policy, Worker
from husai.transport import RESTARTING, Backoff, Cut, Transport, is_cut

POLL, SHORTEST_POLL = 25.0, 1.0
"""Seconds for which the service may hold an answer, and the least to which a proxy's impatience brings this down."""
STREAM_SILENCE, EVENT_PAUSE = 40.0, 1.5
"""Seconds without a byte after which an event stream counts as broken, and between two looks at stored events."""
PAGE = 100
DETAILS = ("spec", "inputs", "outputs")
D = TypeVar("D", bound=Document)


class Husai:
    """One service, as one key's owner sees it. Every method raises `Refused` or `Unavailable` (`husai.errors`).

    Args:
        url: address of the service, without `/v1`.
        key: API key, `husai_…`.
        patience: seconds for which an unreachable service (a restart, say) is tried again.
    """

    def __init__(self, url: str, key: str, *, patience: float = 60.0) -> None:
        self._transport = Transport(url, key, patience)
        self._hold = POLL

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # Jobs

    def submit(
        self,
        kind: str,
        spec: Mapping[str, Any] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        labels: Sequence[str] = (),
        priority: str | None = None,
        device: str | None = None,
        reuse: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Ask for a job. With one idempotency `key`, asking again gives the same job; without, each call is new."""
        body = _body(kind, spec, inputs, labels, priority, device, reuse)
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return Job.read(self._json("POST", "/v1/jobs", json=body, headers=headers, repeatable=True))

    def plan(
        self, kind: str, spec: Mapping[str, Any] | None = None, *, inputs: Mapping[str, Any] | None = None
    ) -> Plan:
        """What `submit` would start; stores nothing."""
        body = _body(kind, spec, inputs)
        return Plan(**self._json("POST", "/v1/jobs", params={"dry_run": "true"}, json=body, repeatable=True))

    def job(self, job_id: str) -> Job:
        """One job as it stands."""
        return Job.read(self._json("GET", f"/v1/jobs/{_segment(job_id)}"))

    def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        parent: str | None = None,
        owner: str | None = None,
        top: bool = False,
        include: Sequence[str] = (),
    ) -> Iterator[Job]:
        """Jobs, newest first, read page by page as they are asked for.

        Args:
            top: only jobs that no study asked for.
            include: what a list leaves out otherwise: `spec`, `inputs`, `outputs`.
        """
        filters = {"state": state, "kind": kind, "label": label, "parent": parent, "owner": owner}
        return self._pages("/v1/jobs", Job, **filters, top="true" if top else None, include=list(include) or None)

    def children(self, job: Job) -> list[Job]:
        """The jobs that a study asked for, each after those that it needs; none before its own inputs exist."""
        children = {child.id: child for child in self.jobs(parent=job.id, include=DETAILS)}

        def rank(child: Job) -> int:
            return 1 + max((rank(children[source]) for source in child.sources if source in children), default=0)

        return sorted(children.values(), key=rank)

    def limit(self, seconds: float) -> None:
        """From now on, requests raise `TimedOut` when so many seconds have passed, whatever the patience."""
        self._transport.deadline = time.monotonic() + seconds

    def poll(self, job: Job, seconds: float) -> Job:
        """The job when it has changed, or as it was after `seconds` (at most 25) or when a proxy breaks this off."""
        response = self._held(
            f"/v1/jobs/{_segment(job.id)}", seconds, headers={"If-None-Match": f'"{job.id}-{job.version}"'}
        )
        return job if response is None or response.status_code == 304 else Job.read(_object(response))

    def _held(self, path: str, seconds: float, **options: Any) -> httpx.Response | None:
        """An answer that the service may hold back for `seconds`; None when something on the way cut the request.

        Proxies end requests after a time that nobody tells: each cut halves how long the next request may be held, and
        each answer lets that grow again by a tenth.
        """
        hold = round(max(0.0, min(self._hold, seconds)), 1)
        options["params"] = {**options.get("params", {}), "wait": hold}
        try:
            response = self._transport.request("GET", path, timeout=hold + 15, held=hold > SHORTEST_POLL, **options)
        except Cut:
            self._hold = max(SHORTEST_POLL, hold / 2)
            return None
        self._hold = min(POLL, 1.1 * self._hold)
        return response

    def wait(self, job_id: str, timeout: float | None = None, until: Callable[[Job], bool] | None = None) -> Job:
        """The job once it is final, or once `until` says so. Sits through restarts of the service.

        Raises:
            TimedOut: that took more than `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self.job(job_id)
        while not (job.final or (until and until(job))):
            left = POLL if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"job {job_id} is still {job.state} after {timeout:g} s")
            began = time.monotonic()
            latest = self.poll(job, min(POLL, left))
            if latest.version == job.version and time.monotonic() - began < 0.5:
                time.sleep(0.5)
            job = latest
        return job

    def cancel(self, job_id: str) -> Job:
        """Ask that a job stops."""
        return Job.read(self._json("POST", f"/v1/jobs/{_segment(job_id)}:cancel"))

    def retry(self, job_id: str) -> Job:
        """A new job like one that did not succeed."""
        return Job.read(self._json("POST", f"/v1/jobs/{_segment(job_id)}:retry"))

    def rerun(self, job_id: str) -> Job:
        """A new job that computes the same once more, whatever is stored."""
        return Job.read(self._json("POST", f"/v1/jobs/{_segment(job_id)}:rerun"))

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What happens to a job, live, until it is final; a broken stream is resumed without gap or repetition.

        Where a proxy lets no stream through, the stored events are read again and again instead.
        """
        retry, latest = Backoff(self._transport.patience), after
        while True:
            before = latest
            try:
                for event in self._event_stream(job_id, latest):
                    retry.reset()
                    latest = event.id
                    yield event
                    if event.type == "state" and event.data.get("state") in FINAL:
                        return
                if self.job(job_id).final:
                    return
            except (httpx.HTTPError, Refused) as error:
                if is_cut(error) and latest == before:
                    yield from self._stored_events(job_id, latest)
                    return
                if isinstance(error, Refused) and error.status not in RESTARTING:
                    raise
                if not retry.sleep():
                    raise error if isinstance(error, Refused) else self._transport.unavailable(error) from error

    def _event_stream(self, job_id: str, after: int) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._transport.stream(f"/v1/jobs/{_segment(job_id)}/events", headers, STREAM_SILENCE) as response:
            yield from sse.parse(response.iter_lines())

    def _stored_events(self, job_id: str, after: int) -> Iterator[Event]:
        """The events of a job as they are stored, until it is final."""
        while True:
            final = self.job(job_id).final  # asked first, so that the events of its end are there
            while page := self.recent(job_id, after):
                yield from page
                after = page[-1].id
            if final:
                return
            time.sleep(EVENT_PAUSE)

    def recent(self, job_id: str, after: int = 0, limit: int = 200) -> list[Event]:
        """Stored events after the one with id `after`, oldest first."""
        page = self._json(
            "GET",
            f"/v1/jobs/{_segment(job_id)}/events",
            params={"after": after, "limit": limit},
            headers={"Accept": "application/json"},
        )
        return [Event.read(item) for item in page["items"]]

    def logs(self, job_id: str) -> str:
        """All log lines so far."""
        return self._transport.request("GET", f"/v1/jobs/{_segment(job_id)}/logs").text

    def report(self, job_id: str) -> str:
        """The self-contained HTML report of a pipeline."""
        return self._transport.request("GET", f"/v1/jobs/{_segment(job_id)}/report").text

    # Artifacts

    def upload(self, path: Path, *, name: str | None = None) -> Artifact:
        """Send one file; the service checks that it arrives whole."""
        response = self._transport.request(
            "POST",
            "/v1/artifacts",
            params={"name": name or path.name, "type": "upload"},
            content=lambda: files.chunks(path),
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(path.stat().st_size),
                "Content-Digest": files.content_digest(files.sha256(path)),
            },
            repeatable=True,
            timeout=300.0,
        )
        return Artifact.read(_object(response))

    def upload_files(self, paths: Mapping[str, Path]) -> Artifact:
        """Send several files, by the names they shall have, as one artifact; a name with slashes lies in folders."""
        if len(paths) == 1:
            ((name, path),) = paths.items()
            return self.upload(path, name=PurePosixPath(name).name)
        blobs = {}
        for name, path in paths.items():
            (blob,) = self.upload(path, name=PurePosixPath(name).name).files.values()
            blobs[name] = blob["sha256"]
        body = {"type": "upload", "files": blobs}
        return Artifact.read(self._json("POST", "/v1/artifacts/trees", json=body, repeatable=True))

    def artifacts(self, *, type: str | None = None) -> Iterator[Artifact]:
        """Artifacts, newest first, without their file lists."""
        return self._pages("/v1/artifacts", Artifact, type=type)

    def artifact(self, sha256: str) -> Artifact:
        """Type and files of one artifact.

        Raises:
            Mismatch: this is the digest of something else.
        """
        try:
            index = json.loads(self.read(sha256))
            size = sum(file["size"] for file in index["files"].values())
            return Artifact.read({"sha256": sha256, "size": size, **index})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Mismatch(f"{sha256} is a file, not an artifact") from None

    def read(self, sha256: str) -> bytes:
        """The bytes of one small file, found by its digest.

        Raises:
            Mismatch: what the service sent has another digest.
        """
        body = self._transport.request("GET", f"/v1/artifacts/{_segment(sha256)}").content
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Mismatch(f"the bytes of {sha256} have another digest")
        return body

    def download(self, sha256: str, path: Path) -> Path:
        """Write one file, found by its digest, to `path`; checks the digest and resumes a broken connection."""
        return files.download(self._transport, sha256, path)

    def fetch(self, sha256: str, directory: Path) -> list[Path]:
        """Write the files of an artifact into a directory."""
        index = self.artifact(sha256).files
        return [self.download(entry["sha256"], files.inside(directory, name)) for name, entry in index.items()]

    # What there is, and the gate

    def kinds(self) -> list[Kind]:
        """All job kinds."""
        return [Kind.read(item) for item in self._items("/v1/kinds")]

    def kind(self, name: str) -> Kind:
        """One job kind with its schemas."""
        return Kind.read(self._json("GET", f"/v1/kinds/{_segment(name)}"))

    def workers(self) -> list[Worker]:
        """The workers that have reported themselves, the one that was seen last first."""
        return [Worker.read(item) for item in self._items("/v1/workers")]

    def candidates(self) -> Iterator[Candidate]:
        """SAE checkpoints that a gate may judge."""
        return self._pages("/v1/candidates", Candidate)

    def candidate(self, sha256: str) -> Candidate:
        """One candidate."""
        return Candidate.read(self._json("GET", f"/v1/candidates/{_segment(sha256)}"))

    def policies(self) -> list[Policy]:
        """The policies that the service knows."""
        return [Policy.read(item) for item in self._items("/v1/policies")]

    def decide(
        self, candidate: str, *, policy: str = "strict", evidence: Sequence[str] = (), key: str | None = None
    ) -> Job:
        """Ask for a decision by all evidence that is known, and some more; the job that makes it is returned.

        With one idempotency `key`, asking again gives the same job; without, each call is new.
        """
        body = {"candidate": candidate} | ({"evidence": list(evidence)} if evidence else {})
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        path = f"/v1/gates/{_segment(policy)}/decisions"
        return Job.read(self._json("POST", path, json=body, headers=headers, repeatable=True))

    def decisions(self, *, job: str | None = None) -> Iterator[Decision]:
        """All decisions, newest first, or what one job decided."""
        return self._pages("/v1/decisions", Decision, job=job)

    def decision(self, decision_id: str) -> Decision:
        """One decision."""
        return Decision.read(self._json("GET", f"/v1/decisions/{_segment(decision_id)}"))

    def latest(self, candidate: str, *, policy: str = "strict", wait: float = 0) -> Decision | None:
        """The newest decision about a candidate, or None if there is none within `wait` seconds (at most 30)."""
        path = f"/v1/gates/{_segment(policy)}/decisions/latest"
        try:
            response = self._held(path, wait, params={"subject": candidate})
        except Refused as error:
            if error.slug != "unknown-decision":
                raise
            return None
        return None if response is None else Decision.read(_object(response))

    def bundle(self, decision_id: str) -> dict[str, Any]:
        """All that is needed to check a decision offline."""
        return self._json("GET", f"/v1/decisions/{_segment(decision_id)}/bundle")

    # Keys

    def keys(self) -> list[Key]:
        """API keys, without their secrets."""
        return [Key.read(item) for item in self._items("/v1/keys")]

    def create_key(self, name: str, scopes: Sequence[str], **more: Any) -> Key:
        """Make a key; `more` may hold `owner`, `role` and `expires_in_days`. The token is shown only this once."""
        body = {"name": name, "scopes": list(scopes)} | {k: v for k, v in more.items() if v is not None}
        return Key.read(self._json("POST", "/v1/keys", json=body))

    def revoke_key(self, key_id: str) -> None:
        """End a key."""
        self._transport.request("DELETE", f"/v1/keys/{_segment(key_id)}")

    # Plumbing

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return _object(self._transport.request(method, path, **options))

    def _items(self, path: str) -> list[dict[str, Any]]:
        """A short list."""
        return list(self._json("GET", path)["items"])

    def _pages(self, path: str, model: type[D], **filters: str | list[str] | None) -> Iterator[D]:
        cursor: str | None = None
        while True:
            page = self._json("GET", path, params={**filters, "cursor": cursor, "limit": PAGE})
            yield from (model.read(item) for item in page["items"])
            cursor = page.get("next")
            if not cursor:
                return


def _body(
    kind: str,
    spec: Mapping[str, Any] | None,
    inputs: Mapping[str, Any] | None,
    labels: Sequence[str] = (),
    priority: str | None = None,
    device: str | None = None,
    reuse: str | None = None,
) -> dict[str, Any]:
    """A submission, without the members that were left to the service."""
    optional = {"labels": list(labels), "priority": priority, "device": device, "reuse": reuse}
    return {"kind": kind, "spec": dict(spec or {}), "inputs": dict(inputs or {})} | {
        k: v for k, v in optional.items() if v
    }


def _segment(name: str) -> str:
    """A name as one path segment, so that none can lead elsewhere."""
    from urllib.parse import quote

    try:
        return quote(name, safe="") or "-"
    except UnicodeEncodeError:
        raise Usage(f"{name!a} is not a name or id") from None


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused("bad-answer", "Unexpected answer", f"{response.request.url} did not answer with a document", 502)
    return document
