"""Report the metrics of this process, and the leader's knowledge of Slurm, to the other processes."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.errors import SlurmProxyError, StoreUnavailable
from app.lifecycle.complete_poll import CompletePoll
from app.metrics import POLL_SECONDS, Metrics
from app.slurm.client import SlurmClient
from app.store.health import HealthStore, ProcessReport
from app.store.lease import LeaderLease

logger = logging.getLogger(__name__)

WRITE_SECONDS = 2.0  # that a report may take; a store that takes longer counts as unavailable
_MIN_PAUSE = 3.0  # seconds between two reports of one process


class ReportStore(HealthStore, LeaderLease, Protocol):
    """The parts of a store that reports need."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """Result of the last report: whether the store can be written, and how long the write took."""

    fault: str | None
    seconds: float


class HealthReporter:
    """The reports of one process. Thread-safe.

    A report is a real write, so it also shows whether the store can be written.
    """

    def __init__(
        self,
        store: ReportStore,
        slurm: SlurmClient,
        metrics: Metrics | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a reporter that has written nothing.

        Args:
            store: Where the reports are written.
            slurm: The client of the leading process.
            metrics: The metrics of this process.
            clock: Seconds of a monotonic clock.
        """
        self._store = store
        self._slurm = slurm
        self.metrics = metrics or Metrics()
        self._clock = clock
        self._writing = threading.Lock()
        self._began = float("-inf")
        self._state = StoreState(None, 0.0)

    def write_report(self) -> StoreState:
        """Write the metrics of this process, unless they were written a moment ago; return the result.

        While another thread writes, the result of the last write is returned; if that thread takes long, the
        store counts as unavailable.
        """
        if not self._writing.acquire(blocking=False):
            seconds = self._clock() - self._began
            if seconds > WRITE_SECONDS + 1:
                return StoreState(f"the store has not answered for {seconds:.0f} s", seconds)
            return self._state
        try:
            if self._clock() - self._began >= _MIN_PAUSE:
                self._began = self._clock()
                fault = self._write()
                self._state = StoreState(fault, self._clock() - self._began)
            return self._state
        finally:
            self._writing.release()

    def delete_report(self) -> None:
        """Delete the report of this process, which is about to end."""
        try:
            self._store.delete_report(make_process_name())
        except StoreUnavailable as error:
            logger.debug("the report of this process stays for a day: %s", error)

    def report_cycle(
        self, owner: str, seconds: float, pause: float, error: Exception | None, poll: CompletePoll | None
    ) -> None:
        """Report the end of a polling cycle, as the leader.

        Args:
            owner: The name by which this process leads.
            seconds: How long the cycle took.
            pause: Seconds until the next cycle.
            error: Why the cycle failed; None if it succeeded.
            poll: The last complete poll.
        """
        polled = {"polled_at": poll.began, "uncovered": sorted(poll.uncovered)} if poll else {}
        self.metrics.observe(POLL_SECONDS, seconds, "failed" if error else "finished")
        if error is not None:
            self._update(owner, fault=_describe_failure(error), pause_seconds=pause, **polled)
        else:
            finished = {"seconds": seconds, "fault": None, "finished_at": self._now()}
            self._update(owner, pause_seconds=pause, **finished, **polled)

    def check_slurm(self, owner: str) -> None:
        """Ask slurmctld and slurmdbd whether they answer, and report the result, as the leader."""
        health = self._slurm.check_health()
        self._update(
            owner,
            slurm_checked_at=self._now(),
            slurm_fault=health.fault,
            key_fault=health.key_fault,
            accounting_fault=health.accounting_fault,
            has_accounting=health.has_accounting,
        )

    def _write(self) -> str | None:
        """Write the report; return the reason if the write failed."""
        try:
            report = ProcessReport(
                make_process_name(), socket.gethostname(), self._store.now(), self.metrics.snapshot()
            )
            self._store.write_report(report, WRITE_SECONDS)
        except StoreUnavailable as error:
            return str(error)
        return None

    def _update(self, owner: str, **changes: Any) -> None:
        """Change the report of the leader; leave this to the next cycle if the store is unavailable."""
        values = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in changes.items()
        }
        try:
            self._store.update_leader_report(owner, values)
        except StoreUnavailable as error:
            logger.debug("the leader cannot report: %s", error)

    def _now(self) -> datetime | None:
        try:
            return self._store.now()
        except StoreUnavailable:
            return None


def make_process_name() -> str:
    """Return a name for this process that no other living process has."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _describe_failure(error: Exception) -> str:
    return str(error) if isinstance(error, SlurmProxyError) else type(error).__name__
