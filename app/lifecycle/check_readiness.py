"""Check whether this service can do its work: `GET /readyz`.

A check reads the store, and never asks Slurm: the leader asks, and writes the result beside its lease.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.errors import StoreUnavailable
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.judge_health import (
    HealthLimits,
    SlurmKnowledge,
    judge_accounting,
    judge_dead_letters,
    judge_key,
    judge_leader,
    judge_notifications,
    judge_poll,
    judge_reservations,
    judge_slurm,
    judge_store,
)
from app.lifecycle.report_health import WRITE_SECONDS, HealthReporter
from app.models.health_answers import (
    AccountingPart,
    DeadLettersPart,
    LeaderPart,
    NotificationsPart,
    Parts,
    PartStatus,
    PollPart,
    Readiness,
    ReservationsPart,
    StorePart,
)
from app.models.leader_report import LeaderReport
from app.slurm.client import SlurmClient
from app.store.health import Backlog, HealthStore
from app.store.lease import LeaderLease, Lease

_MIN_CACHE_SECONDS = 1.0
_CACHE_FACTOR = 50  # a check that takes long is kept so many times as long
_MAX_CACHE_SECONDS = 10.0
_WORST_FIRST = (PartStatus.NOT_READY, PartStatus.DEGRADED)


class ReadinessStore(HealthStore, LeaderLease, Protocol):
    """The parts of a store that a check reads."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the store says of the service, at a time of the store."""

    at: datetime
    lease: Lease | None
    backlog: Backlog


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The parts, and what the store says; `stored` is None while the store cannot be read."""

    parts: Parts
    stored: StoredState | None = None


class ReadinessCheck:
    """The use case of `GET /readyz`. Thread-safe; all callers of a moment share one check."""

    def __init__(
        self,
        store: ReadinessStore,
        reporter: HealthReporter,
        clients: Sequence[SlurmClient],
        clocks: ClockGuard,
        limits: HealthLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the use case.

        Args:
            store: The lease, and what waits in the store.
            reporter: Writes the report of this process.
            clients: The clients of Slurm, whose circuit breakers know of outages.
            clocks: Compares the clocks of this host, of the store and of Slurm.
            limits: What counts as late.
            clock: Seconds of a monotonic clock.
        """
        self._store = store
        self._reporter = reporter
        self._clients = clients
        self._clocks = clocks
        self._limits = limits
        self._clock = clock
        self._checking = threading.Lock()
        self._last: ServiceState | None = None
        self._until = float("-inf")

    def check(self) -> Readiness:
        """Return the health of all parts, as of at most some seconds ago."""
        parts = self.read_state().parts
        return Readiness(status=_find_worst(parts), parts=parts)

    def read_state(self) -> ServiceState:
        """Return the parts, with the state of the service that they were judged by."""
        with self._checking:
            if self._last is None or self._clock() >= self._until:
                began = self._clock()
                self._last = self._read_state()
                cost = (self._clock() - began) * _CACHE_FACTOR
                self._until = self._clock() + min(max(cost, _MIN_CACHE_SECONDS), _MAX_CACHE_SECONDS)
            return self._last

    def _read_state(self) -> ServiceState:
        state = self._reporter.write_report()
        store = judge_store(state.fault, state.seconds)
        if state.fault is None or state.seconds < WRITE_SECONDS:  # else reading would wait again
            try:
                return self._read_stored_state(store)
            except StoreUnavailable as error:
                if state.fault is None:
                    store = judge_store(str(error), state.seconds)
        return ServiceState(self._without_store(store))

    def _read_stored_state(self, store: StorePart) -> ServiceState:
        """Return all parts, with the state of the service that they were judged by.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        now, limits = self._store.now(), self._limits
        lease = self._store.read_lease(WRITE_SECONDS)
        backlog = self._store.measure_backlog(now)
        report = lease.report if lease else LeaderReport()
        known = self._find_slurm_knowledge(report if lease and lease.is_held(now) else LeaderReport())
        poll = judge_poll(report, now, limits, known.outage)
        parts = Parts(
            store=store,
            leader=judge_leader(lease, now, poll, self._clocks.describe_disagreement(now)),
            poll=poll,
            slurm=judge_slurm(known),
            key=judge_key(known),
            accounting=judge_accounting(known.report),
            reservations=judge_reservations(backlog, now, limits),
            notifications=judge_notifications(backlog, now),
            dead_letters=judge_dead_letters(backlog, now),
        )
        return ServiceState(parts, StoredState(now, lease, backlog))

    def _without_store(self, store: StorePart) -> Parts:
        """Return the parts while the store cannot be read."""
        known = self._find_slurm_knowledge(LeaderReport())
        unknown, why = PartStatus.UNKNOWN, "the store cannot be read"
        return Parts(
            store=store,
            leader=LeaderPart(status=unknown, reason=why),
            poll=PollPart(status=unknown, reason=why),
            slurm=judge_slurm(known),
            key=judge_key(known),
            accounting=AccountingPart(status=unknown, reason=why),
            reservations=ReservationsPart(status=unknown, reason=why),
            notifications=NotificationsPart(status=unknown, reason=why),
            dead_letters=DeadLettersPart(status=unknown, reason=why),
        )

    def _find_slurm_knowledge(self, report: LeaderReport) -> SlurmKnowledge:
        return SlurmKnowledge(
            report,
            [client.outage for client in self._clients],
            [client.token_fault for client in self._clients],
        )


def _find_worst(parts: Parts) -> PartStatus:
    found = {part.status for _, part in parts.items()}
    return next((status for status in _WORST_FIRST if status in found), PartStatus.READY)
