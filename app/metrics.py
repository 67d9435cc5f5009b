"""Counters, durations and gauges of one process.

Each metric is described once, at the end of this file, and counted by the object `Metrics` that the services
of the process share. Nothing here knows Prometheus: `app/web/metrics_page.py` writes its format.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any

Labels = tuple[str, ...]
Snapshot = dict[str, list[list[Any]]]
"""By name of a metric: the values of its labels, and its value. A histogram's value is the list of the counts
of its buckets, the last without a limit, and then the sum of what was observed."""


class Kind(StrEnum):
    """The kind of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """The description of a metric; only a histogram has `buckets`, the upper limits in seconds."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()


class Metrics:
    """The metrics of one process. Thread-safe."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._lock = threading.Lock()
        self._counts: dict[tuple[Metric, Labels], float] = {}
        self._histograms: dict[tuple[Metric, Labels], list[float]] = {}
        self._gauges: dict[tuple[Metric, Labels], Callable[[], float]] = {}

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Count an event."""
        with self._lock:
            self._counts[metric, labels] = self._counts.get((metric, labels), 0) + by

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        bucket = bisect_left(metric.buckets, seconds)
        with self._lock:
            values = self._histograms.setdefault((metric, labels), [0.0] * (len(metric.buckets) + 2))
            values[bucket] += 1
            values[-1] += seconds

    @contextmanager
    def timing(self, metric: Metric, *labels: str) -> Iterator[None]:
        """Add the duration of the block to a histogram, even if the block raises an exception."""
        began = monotonic()
        try:
            yield
        finally:
            self.observe(metric, monotonic() - began, *labels)

    def add_gauge(self, metric: Metric, read: Callable[[], float], *labels: str) -> None:
        """Have a gauge read by this function at each snapshot."""
        self._gauges[metric, labels] = read

    def snapshot(self) -> Snapshot:
        """Return all values, as JSON can have them."""
        with self._lock:
            values: dict[tuple[Metric, Labels], Any] = {
                **self._counts,
                **{key: [*buckets] for key, buckets in self._histograms.items()},
            }
        values |= {key: read() for key, read in self._gauges.items()}
        found: Snapshot = {}
        for (metric, labels), value in values.items():
            found.setdefault(metric.name, []).append([list(labels), value])
        return found


_REQUEST_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 1, 2.5, 10, 30, 60)
_STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)

HTTP_REQUESTS = Metric(
    "slurm_proxy_http_requests_total",
    Kind.COUNTER,
    "Requests of callers that were answered, by route and status.",
    ("method", "route", "status"),
)
HTTP_REQUEST_SECONDS = Metric(
    "slurm_proxy_http_request_seconds",
    Kind.HISTOGRAM,
    "Duration of the requests of callers.",
    ("method", "route"),
    _REQUEST_BUCKETS,
)
SUBMISSIONS = Metric(
    "slurm_proxy_submissions_total",
    Kind.COUNTER,
    "Submissions by outcome: submitted, or the code of the error.",
    ("outcome",),
)
SUBMISSION_SECONDS = Metric(
    "slurm_proxy_submission_seconds",
    Kind.HISTOGRAM,
    "Duration of submissions, whatever their outcome.",
    (),
    _REQUEST_BUCKETS,
)
RATE_LIMITED_REQUESTS = Metric(
    "slurm_proxy_rate_limited_requests_total",
    Kind.COUNTER,
    "Requests that were refused because of a limit, by the code of the error.",
    ("code",),
)
SLURM_REQUESTS = Metric(
    "slurm_proxy_slurm_requests_total",
    Kind.COUNTER,
    "Requests to slurmrestd by kind and outcome: ok, error (status, or an API version that it"
    " does not offer), unanswered, or busy (not sent).",
    ("kind", "outcome"),
)
LOOK_UPS_OVER_BUDGET = Metric(
    "slurm_proxy_look_ups_over_budget_total",
    Kind.COUNTER,
    "Requests to Slurm that look-ups did not make, because SLURM_REQUESTS_PER_SECOND was used up.",
)
SLURM_REQUEST_SECONDS = Metric(
    "slurm_proxy_slurm_request_seconds",
    Kind.HISTOGRAM,
    "Duration of requests to slurmrestd.",
    ("kind",),
    _REQUEST_BUCKETS,
)
SLURM_CIRCUIT_OPEN = Metric(
    "slurm_proxy_slurm_circuit_open",
    Kind.GAUGE,
    "1 while Slurm is known to be down and requests fail at once; by the client in the process.",
    ("client",),
)
POLL_SECONDS = Metric(
    "slurm_proxy_poll_seconds",
    Kind.HISTOGRAM,
    "Duration of the polling cycles of this process, by outcome: finished or failed.",
    ("outcome",),
    _REQUEST_BUCKETS,
)
DELIVERIES = Metric(
    "slurm_proxy_deliveries_total",
    Kind.COUNTER,
    "Claims of notifications by method and outcome: sent, retrying, gathered (for a digest) or dead.",
    ("method", "outcome"),
)
STORE_OPERATION_SECONDS = Metric(
    "slurm_proxy_store_operation_seconds",
    Kind.HISTOGRAM,
    "Duration of operations of the store: read or write.",
    ("operation",),
    _STORE_BUCKETS,
)
START_TIME = Metric(
    "slurm_proxy_start_time_seconds", Kind.GAUGE, "When the process started, in seconds since the epoch."
)

PROCESS_METRICS = (
    HTTP_REQUESTS,
    HTTP_REQUEST_SECONDS,
    SUBMISSIONS,
    SUBMISSION_SECONDS,
    RATE_LIMITED_REQUESTS,
    SLURM_REQUESTS,
    LOOK_UPS_OVER_BUDGET,
    SLURM_REQUEST_SECONDS,
    SLURM_CIRCUIT_OPEN,
    POLL_SECONDS,
    DELIVERIES,
    STORE_OPERATION_SECONDS,
    START_TIME,
)

PART_STATUS = Metric(
    "slurm_proxy_part_status",
    Kind.GAUGE,
    "1 for the status that a part of the service has in /readyz, 0 for the others.",
    ("part", "status"),
)
TASKS = Metric(
    "slurm_proxy_tasks",
    Kind.GAUGE,
    "Tasks by the last known state of their job; none for a task without a job.",
    ("state",),
)
NOTIFICATIONS = Metric(
    "slurm_proxy_notifications",
    Kind.GAUGE,
    "Notifications that are not sent, by method and status.",
    ("method", "status"),
)
DUE_NOTIFICATIONS = Metric(
    "slurm_proxy_due_notifications", Kind.GAUGE, "Notifications that are due now, by method.", ("method",)
)
OLDEST_DUE_NOTIFICATION = Metric(
    "slurm_proxy_oldest_due_notification_seconds",
    Kind.GAUGE,
    "How long the oldest notification that is due has been due, by method.",
    ("method",),
)
DEAD_LETTERS = Metric("slurm_proxy_dead_letters", Kind.GAUGE, "Messages that were given up.")
OPEN_RESERVATIONS = Metric(
    "slurm_proxy_open_reservations", Kind.GAUGE, "Tasks for which no job is known yet."
)
OLDEST_RESERVATION = Metric(
    "slurm_proxy_oldest_reservation_seconds", Kind.GAUGE, "The age of the oldest open reservation."
)
LAST_POLL_AGE = Metric(
    "slurm_proxy_last_poll_age_seconds", Kind.GAUGE, "How long ago the last successful poll ended."
)
LAST_POLL_DURATION = Metric(
    "slurm_proxy_last_poll_duration_seconds", Kind.GAUGE, "How long the last successful poll took."
)
LEADER_PRESENT = Metric(
    "slurm_proxy_leader_present", Kind.GAUGE, "1 while a process holds the lease, else 0."
)
LEASE_CHANGES = Metric(
    "slurm_proxy_lease_changes_total", Kind.COUNTER, "How often the lease went to another process."
)
BUILD_INFO = Metric("slurm_proxy_build_info", Kind.GAUGE, "1, with the version as label.", ("version",))

STORE_METRICS = (
    PART_STATUS,
    TASKS,
    NOTIFICATIONS,
    DUE_NOTIFICATIONS,
    OLDEST_DUE_NOTIFICATION,
    DEAD_LETTERS,
    OPEN_RESERVATIONS,
    OLDEST_RESERVATION,
    LAST_POLL_AGE,
    LAST_POLL_DURATION,
    LEADER_PRESENT,
    LEASE_CHANGES,
    BUILD_INFO,
)
