"""The typed Python client.

>>> husai = Husai("http://127.0.0.1:8765", key)
>>> job = husai.wait(husai.submit("study.pipeline", {"preset": "language"}).id)
>>> husai.panels(job.id)["panels"]
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from husai import sse
from husai.artifact_calls import ArtifactCalls
from husai.calls import POLL, object_of, segment
from husai.errors import Refused, TimedOut
from husai.models import FINAL, Candidate, Decision, Event, Job, Key, Kind, Plan, Policy, SigningKey, Worker
from husai.transport import RESTARTING, Backoff, is_cut

STREAM_SILENCE, EVENT_PAUSE = 40.0, 1.5
"""Seconds without a byte after which an event stream counts as broken, and between two looks at stored events."""
DETAILS = ("spec", "inputs", "outputs")
SLACK_SECONDS = 5.0
"""What a request that is under way when a time limit is over may still take."""


class Husai(ArtifactCalls):
    """One service, as one key's owner sees it. Every method raises `Refused` or `Unavailable` (`husai.errors`).

    Args:
        url: address of the service, without `/v1`.
        key: API key, `husai_…`.
        patience: seconds for which an unreachable service (a restart, say) is tried again.
    """

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
        return Job.read(self._json("GET", f"/v1/jobs/{segment(job_id)}"))

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

    def first_jobs(
        self, limit: int, *, top: bool = False, cursor: str | None = None, **filters: str | None
    ) -> tuple[list[Job], str | None]:
        """At most `limit` jobs, newest first, and the cursor from which the list goes on, if it does.

        Args:
            filters: those of `jobs`.
        """
        return self._first("/v1/jobs", Job, limit, cursor, **filters, top="true" if top else None)

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
            f"/v1/jobs/{segment(job.id)}", seconds, headers={"If-None-Match": f'"{job.id}-{job.version}"'}
        )
        return job if response is None or response.status_code == 304 else Job.read(object_of(response))

    def wait(self, job_id: str, timeout: float | None = None, until: Callable[[Job], bool] | None = None) -> Job:
        """The job once it is final, or once `until` says so. Sits through restarts of the service.

        Raises:
            TimedOut: that took more than `timeout` seconds, whether or not the service answered. A request that is
                under way may take five more, so that a timeout of 0 is one look.
        """
        earlier = self._transport.deadline
        if timeout is not None:
            self._transport.deadline = min(earlier, time.monotonic() + timeout + SLACK_SECONDS)
        try:
            return self._wait(job_id, timeout, until)
        finally:
            self._transport.deadline = earlier

    def _wait(self, job_id: str, timeout: float | None, until: Callable[[Job], bool] | None) -> Job:
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
        return Job.read(self._json("POST", f"/v1/jobs/{segment(job_id)}:cancel"))

    def retry(self, job_id: str) -> Job:
        """A new job like one that did not succeed."""
        return Job.read(self._json("POST", f"/v1/jobs/{segment(job_id)}:retry"))

    def rerun(self, job_id: str) -> Job:
        """A new job that computes the same once more, whatever is stored."""
        return Job.read(self._json("POST", f"/v1/jobs/{segment(job_id)}:rerun"))

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
        with self._transport.stream(f"/v1/jobs/{segment(job_id)}/events", headers, STREAM_SILENCE) as response:
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

    def recent(self, job_id: str, after: int = 0, limit: int = 200, type: str | None = None) -> list[Event]:
        """Stored events (of one type) after the one with id `after`, oldest first."""
        page = self._json(
            "GET",
            f"/v1/jobs/{segment(job_id)}/events",
            params={"after": after, "limit": limit, "type": type},
            headers={"Accept": "application/json"},
        )
        return [Event.read(item) for item in page["items"]]

    def logs(self, job_id: str) -> str:
        """All log lines so far."""
        return self._transport.request("GET", f"/v1/jobs/{segment(job_id)}/logs").text

    def panels(self, job_id: str) -> dict[str, Any]:
        """What there is to see of a job: `panels`, and `children` with theirs; `husai_core.panels` reads them."""
        return self._json("GET", f"/v1/jobs/{segment(job_id)}/panels")

    def report(self, job_id: str) -> str:
        """What there is to see of a job as one HTML file that needs nothing else."""
        return self._transport.request("GET", f"/v1/jobs/{segment(job_id)}/report").text

    # What there is, and the gate

    def kinds(self) -> list[Kind]:
        """All job kinds."""
        return [Kind.read(item) for item in self._items("/v1/kinds")]

    def kind(self, name: str) -> Kind:
        """One job kind with its schemas."""
        return Kind.read(self._json("GET", f"/v1/kinds/{segment(name)}"))

    def workers(self) -> list[Worker]:
        """The workers that have reported themselves, the one that was seen last first."""
        return [Worker.read(item) for item in self._items("/v1/workers")]

    def candidates(self, controls: bool = True) -> Iterator[Candidate]:
        """SAE checkpoints that a gate may judge; without `controls`, none that a gate trained as its own."""
        return self._pages("/v1/candidates", Candidate, controls=None if controls else "false")

    def candidate(self, sha256: str) -> Candidate:
        """One candidate."""
        return Candidate.read(self._json("GET", f"/v1/candidates/{segment(sha256)}"))

    def policies(self) -> list[Policy]:
        """The policies that the service knows."""
        return [Policy.read(item) for item in self._items("/v1/policies")]

    def policy(self, name: str, version: int | None = None) -> Policy:
        """One policy, in its newest version or an earlier one."""
        params = {} if version is None else {"version": version}
        return Policy.read(self._json("GET", f"/v1/policies/{segment(name)}", params=params))

    def add_policy(self, document: Mapping[str, Any]) -> Policy:
        """Add a policy of the lab, or a higher version of one."""
        return Policy.read(self._json("POST", "/v1/policies", json=dict(document)))

    def retire_policy(self, name: str) -> Policy:
        """Let a policy of the lab decide nothing more."""
        return Policy.read(self._json("POST", f"/v1/policies/{segment(name)}:retire"))

    def decide(
        self, candidate: str, *, policy: str = "strict", evidence: Sequence[str] = (), key: str | None = None
    ) -> Job:
        """Ask for a decision by all evidence that is known, and some more; the job that makes it is returned.

        With one idempotency `key`, asking again gives the same job; without, each call is new.
        """
        body = {"candidate": candidate} | ({"evidence": list(evidence)} if evidence else {})
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        path = f"/v1/gates/{segment(policy)}/decisions"
        return Job.read(self._json("POST", path, json=body, headers=headers, repeatable=True))

    def decisions(self, *, job: str | None = None) -> Iterator[Decision]:
        """All decisions, newest first, or what one job decided."""
        return self._pages("/v1/decisions", Decision, job=job)

    def decision(self, decision_id: str) -> Decision:
        """One decision."""
        return Decision.read(self._json("GET", f"/v1/decisions/{segment(decision_id)}"))

    def latest(self, candidate: str, *, policy: str = "strict", wait: float = 0) -> Decision | None:
        """The newest decision about a candidate, or None if there is none within `wait` seconds (at most 30)."""
        path = f"/v1/gates/{segment(policy)}/decisions/latest"
        try:
            response = self._held(path, wait, params={"subject": candidate})
        except Refused as error:
            if error.slug != "unknown-decision":
                raise
            return None
        return None if response is None else Decision.read(object_of(response))

    def bundle(self, decision_id: str) -> dict[str, Any]:
        """All that is needed to check a decision offline."""
        return self._json("GET", f"/v1/decisions/{segment(decision_id)}/bundle")

    def set_badge(self, sha256: str, public: bool) -> None:
        """Let everybody see the verdict about a candidate as a badge, or nobody."""
        path = f"/v1/candidates/{segment(sha256)}/badge"
        self._transport.request("POST", path, json={"public": public}, repeatable=True)

    def chain(self) -> dict[str, Any]:
        """Whether every decision is still what it was: `ok`, `length`, `head` and `problems`."""
        return self._json("GET", "/v1/chain")

    # Keys

    def signing_keys(self) -> list[SigningKey]:
        """The public keys that decisions are signed with, the present one and earlier ones."""
        return [SigningKey.read(item) for item in self._items("/v1/signing-keys")]

    def login_code(self) -> str:
        """A code that signs a browser in once, within a minute."""
        return str(self._json("POST", "/v1/login-codes")["code"])

    def keys(self) -> list[Key]:
        """API keys, without their secrets."""
        return [Key.read(item) for item in self._items("/v1/keys")]

    def create_key(self, name: str, scopes: Sequence[str], **more: Any) -> Key:
        """Make a key; `more` may hold `owner`, `role` and `expires_in_days`. The token is shown only this once."""
        body = {"name": name, "scopes": list(scopes)} | {k: v for k, v in more.items() if v is not None}
        return Key.read(self._json("POST", "/v1/keys", json=body))

    def sign_out(self, key_id: str) -> Key:
        """Sign out every browser that is signed in with a key."""
        return Key.read(self._json("DELETE", f"/v1/keys/{segment(key_id)}/browsers"))

    def revoke_key(self, key_id: str) -> None:
        """End a key."""
        self._transport.request("DELETE", f"/v1/keys/{segment(key_id)}")


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
