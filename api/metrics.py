"""Prometheus figures: requests as they happen, jobs and counters when they are asked for."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from services.db import Database
from services.queries import counts

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)


class Metrics:
    """The registry of one application."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Stored(database))
        labels = ["method", "route"]
        self._seconds = Histogram(
            "husai_http_request_seconds", "Time to answer", labels, buckets=BUCKETS, registry=self.registry
        )
        self._requests = Counter(
            "husai_http_requests", "Answers by status", [*labels, "status"], registry=self.registry
        )

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one finished request under its route, never under its raw path."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other"
        self._seconds.labels(method, route).observe(seconds)
        self._requests.labels(method, route, str(status)).inc()


class _Stored(Collector):
    """Figures that the database holds, read at each scrape."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering reads no database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Jobs by state, live executions by queue, the outbox, the age of heartbeats, and every counter."""
        with self.database.read() as session:
            jobs = GaugeMetricFamily("husai_jobs", "Jobs by state", labels=["state"])
            for state, count in counts.jobs_by_state(session):
                jobs.add_metric([state], count)
            depth = GaugeMetricFamily("husai_queue_depth", "Unfinished executions", labels=["queue", "state"])
            for queue, state, count in counts.live_executions(session):
                depth.add_metric([queue, state], count)
            counters = [
                CounterMetricFamily(f"husai_{name.replace('.', '_')}", "Counted in the database", value=value)
                for name, value in counts.counters(session).items()
            ]
            messages = counts.outbox(session)
            age = GaugeMetricFamily("husai_worker_heartbeat_age_seconds", "Since a worker was seen", labels=["worker"])
            for worker, seconds in counts.heartbeat_ages(session).items():
                age.add_metric([worker], seconds)
        outbox = GaugeMetricFamily(
            "husai_outbox_messages", "Wake-up messages that are still to be sent", value=messages
        )
        return [jobs, depth, outbox, age, *counters]
