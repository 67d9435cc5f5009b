"""Collect the metrics of the service: `GET /metrics`.

Each process counts its own events (`app/metrics.py`), and writes the values into the store every few seconds.
So any process can show the values of all processes of its host. The numbers of tasks and messages, which all
processes share, are counted in the store.
"""

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from app.errors import StoreUnavailable
from app.lifecycle.check_readiness import ReadinessCheck, ReadinessStore
from app.lifecycle.report_health import WRITE_SECONDS, HealthReporter, make_process_name
from app.metrics import (
    BUILD_INFO,
    DEAD_LETTERS,
    DUE_NOTIFICATIONS,
    LAST_POLL_AGE,
    LAST_POLL_DURATION,
    LEADER_PRESENT,
    LEASE_CHANGES,
    NOTIFICATIONS,
    OLDEST_DUE_NOTIFICATION,
    OLDEST_RESERVATION,
    OPEN_RESERVATIONS,
    PART_STATUS,
    TASKS,
    Labels,
    Metric,
    Snapshot,
)
from app.models.health_answers import Parts, PartStatus
from app.store.health import Backlog, ProcessReport
from app.store.lease import Lease
from app.version import read_version

logger = logging.getLogger(__name__)

_LIVING = timedelta(seconds=60)  # a process whose last report is older has ended, or hangs
_COUNTS = "counts"  # the name of the report with the counts, which is for all hosts
_ALL_HOSTS = "*"
MIN_COUNT_SECONDS = 5.0
_MAX_COUNT_SECONDS = 900.0
# Counting takes longer the more records there are: it takes at most a 500th of the time.
COUNT_FACTOR = 500

Sample = tuple[Metric, Labels, float]


@dataclass(frozen=True, slots=True)
class CollectedMetrics:
    """The values of one moment: those of each process by its name, and those of the whole service."""

    processes: Mapping[str, Snapshot]
    service: tuple[Sample, ...]


class MetricsCollection:
    """The use case of `GET /metrics`. Thread-safe."""

    def __init__(self, store: ReadinessStore, reporter: HealthReporter, readiness: ReadinessCheck) -> None:
        """Create the use case."""
        self._store = store
        self._reporter = reporter
        self._readiness = readiness
        self._counting = threading.Lock()
        self._counts: ProcessReport | None = None  # the last ones that this process saw

    def collect(self) -> CollectedMetrics:
        """Return all values; while the store is unavailable, only those of this process and of the parts."""
        processes: dict[str, Snapshot] = {}
        state = self._readiness.read_state()
        samples = [(BUILD_INFO, (read_version(),), 1.0), *_read_parts(state.parts)]
        if state.stored is not None:
            try:
                since = state.stored.at - _LIVING
                reports = self._store.list_reports(socket.gethostname(), since)
                processes = {report.name: dict(report.figures) for report in reports}
                samples += _read_lease(state.stored.lease, state.stored.at)
                samples += _read_backlog(state.stored.backlog, state.stored.at)
                samples += _read_counts(self._count(state.stored.at))
            except StoreUnavailable as error:
                logger.debug("the store does not answer to a scrape: %s", error)
        processes[make_process_name()] = self._reporter.metrics.snapshot()
        return CollectedMetrics(processes, tuple(samples))

    def _count(self, now: datetime) -> ProcessReport:
        """Return the counts of tasks and messages, which all processes share; renew them if they are old."""
        with self._counting:
            for counts in self._find_counts(now):
                if counts.name == _COUNTS and _is_young(counts, now):
                    self._counts = counts
                    return counts
            self._counts = ProcessReport(_COUNTS, _ALL_HOSTS, now, self._count_anew())
            try:
                self._store.write_report(self._counts, WRITE_SECONDS)
            except StoreUnavailable as error:
                logger.debug("the counts cannot be shared: %s", error)
            return self._counts

    def _count_anew(self) -> dict[str, Any]:
        """Return the counts, and how long they took.

        Counting may take longer than the store allows. Then the last counts stay, and the next attempt waits.
        """
        began = monotonic()
        try:
            tasks = [*map(list, self._store.count_tasks().items())]
            notifications = [[*key, count] for key, count in self._store.count_notifications().items()]
        except StoreUnavailable as error:
            logger.warning("tasks and notifications cannot be counted for metrics: %s", error)
            known = self._counts.figures if self._counts else {"tasks": [], "notifications": []}
            return {**known, "seconds": monotonic() - began}
        return {"tasks": tasks, "notifications": notifications, "seconds": monotonic() - began}

    def _find_counts(self, now: datetime) -> Iterator[ProcessReport]:
        """Yield the last counts of this process, and then what all processes have in the store."""
        if self._counts is not None:
            yield self._counts
        yield from self._store.list_reports(_ALL_HOSTS, now - timedelta(days=1))


def _is_young(counts: ProcessReport, now: datetime) -> bool:
    limit = min(max(MIN_COUNT_SECONDS, counts.figures["seconds"] * COUNT_FACTOR), _MAX_COUNT_SECONDS)
    return timedelta(0) <= now - counts.at < timedelta(seconds=limit)


def _read_parts(parts: Parts) -> Iterator[Sample]:
    for name, part in parts.items():
        for status in PartStatus:
            yield PART_STATUS, (name, status.value), float(part.status is status)


def _read_counts(counts: ProcessReport) -> Iterator[Sample]:
    for state, count in counts.figures["tasks"]:
        yield TASKS, (state,), count
    for method, status, count in counts.figures["notifications"]:
        yield NOTIFICATIONS, (method, status), count


def _read_lease(lease: Lease | None, now: datetime) -> Iterator[Sample]:
    yield LEADER_PRESENT, (), float(lease is not None and lease.is_held(now))
    if lease is None:
        return
    yield LEASE_CHANGES, (), lease.fence
    if lease.report.finished_at is not None:
        yield LAST_POLL_AGE, (), _seconds(lease.report.finished_at, now)
        yield LAST_POLL_DURATION, (), lease.report.seconds or 0.0


def _read_backlog(backlog: Backlog, now: datetime) -> Iterator[Sample]:
    yield DEAD_LETTERS, (), backlog.dead
    yield OPEN_RESERVATIONS, (), backlog.reservations
    yield OLDEST_RESERVATION, (), _seconds(backlog.oldest_reservation_at, now)
    for method, due in backlog.due.items():
        yield DUE_NOTIFICATIONS, (method,), due.count
        yield OLDEST_DUE_NOTIFICATION, (method,), _seconds(due.oldest_at, now)


def _seconds(since: datetime | None, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0) if since is not None else 0.0
