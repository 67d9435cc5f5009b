"""The background threads of a process: one polls Slurm, and one for each channel delivers."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.deliver import Delivery
from app.lifecycle.poll import Poller
from app.lifecycle.polling_pace import PollingPace
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.report_health import HealthReporter
from app.lifecycle.reservations import Reservations
from app.lifecycle.shared_status import REFRESH_SECONDS
from app.lifecycle.watch_outages import OutageWatch
from app.loops import Loops, Step
from app.outages import OutageLog
from app.slurm.client import SlurmClient
from app.store.lease import LeaderLease

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1  # between two checks of the calls that wait for Slurm


@dataclass(frozen=True, slots=True)
class MonitorTiming:
    """The times of the monitor, in seconds.

    Attributes:
        interval: The time between two steps of a loop; of the poller, only while another process leads.
        min_pause: The shortest pause between two polls; None for the poller's own.
        lease: The time until an unrenewed lease ends.
        cycle_limit: The time after which a polling cycle counts as hung, and its lease is not renewed.
    """

    interval: float
    min_pause: float | None
    lease: float
    cycle_limit: float


class Monitor:
    """The background threads of one process. Only the process that holds the lease, the leader, polls.

    The methods that take a time are one step each, and need no thread. They are given the store's time.
    """

    def __init__(
        self,
        store: LeaderLease,
        reservations: Reservations,
        poller: Poller,
        reconciler: Reconciler,
        delivery: Delivery,
        clocks: ClockGuard,
        timing: MonitorTiming,
        health: HealthReporter,
        *,
        outage_watch: OutageWatch | None = None,
        callers_slurm: SlurmClient | None = None,
        outages: OutageLog | None = None,
        owner: str | None = None,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        """Create a monitor that does not run yet.

        Args:
            store: The lease of the leader, and the store's time.
            reservations: Records late answers of Slurm to submissions.
            poller: Asks Slurm for the states of open jobs.
            reconciler: Settles reservations.
            delivery: Sends notifications.
            clocks: Compares the clocks of this host, of the store and of Slurm.
            timing: The times.
            health: Reports the health of this process to the other ones.
            outage_watch: Notices outages of Slurm, and shares them with the other processes.
            callers_slurm: The client that callers use, if it is not the poller's.
            outages: Where failures are logged.
            owner: The name by which this process leads; by default a new one.
            on_change: Called after a poll that has changed records.
        """
        self._store = store
        self._reservations = reservations
        self._poller = poller
        self._reconciler = reconciler
        self._delivery = delivery
        self._given_owner = owner
        self._owner = owner or _new_owner_name()
        self._timing = timing
        self._pace = PollingPace(timing.min_pause)
        self._pause = timing.interval  # after the last polling cycle
        self._lease = timedelta(seconds=timing.lease)
        self._clocks = clocks
        self._health = health
        self._outages = outages or OutageLog()
        self._outage_watch = outage_watch
        self._callers_slurm = callers_slurm
        self._on_change = on_change
        self._cycle_began: float | None = None  # of the polling cycle that runs now
        self._fencing_token: int | None = None  # while this process leads
        self._loops = Loops(store.now, self._outages)

    def run_cycle(self, now: datetime) -> bool:
        """Run one polling cycle; return False if the process does not lead.

        A process leads if it holds the lease and the clocks agree.
        """
        if self._clocks.describe_disagreement(now) is not None:
            self._release_lease()
            return False
        token = self._fencing_token = self._store.acquire_lease(self._owner, now, now + self._lease)
        if token is None:
            return False
        with self._timing_cycle():
            try:
                if self._poller.poll_once(now, token):
                    self._wake_channels()
                    self._on_change()
            finally:  # a poll that fails must not prevent reconciling
                self._reconciler.reconcile(now, token)
        return True

    def renew_lease(self, now: datetime) -> None:
        """Renew the lease, also during a long polling cycle, but not while a cycle hangs.

        After another process has taken over, the fencing token makes the writes of a hung cycle fail.
        """
        if self._fencing_token is None:
            return
        began = self._cycle_began
        if began is not None and time.monotonic() - began > self._timing.cycle_limit:
            self._fencing_token = None
            message = "the polling cycle has not ended within %.0f s; the lease is not renewed until it ends"
            logger.error(message, self._timing.cycle_limit)
            return
        self._fencing_token = self._store.acquire_lease(self._owner, now, now + self._lease)

    def probe(self) -> None:
        """Find out whether Slurm is back, and read its clock; every process does this."""
        self._poller.probe()
        self._clocks.measure()
        if self._callers_slurm is not None:
            with suppress(SlurmUnavailable, SlurmMisbehaved):
                self._callers_slurm.discover_dialect()
                if self._callers_slurm.token_fault is not None:
                    self._callers_slurm.read_controller_time()

    def check_slurm(self) -> None:
        """Find out whether slurmctld and slurmdbd answer; only the leader does this."""
        if self._fencing_token is not None:
            self._health.check_slurm(self._owner)

    def deliver(self, method: str, now: datetime) -> None:
        """Deliver all notifications of one channel that are due."""
        began = time.monotonic()
        while not self._loops.are_stopping:
            elapsed = timedelta(seconds=time.monotonic() - began)
            if not self._delivery.deliver_one(method, now + elapsed):
                break

    def start(self) -> None:
        """Start the threads; to be called once, after any fork."""
        self._loops = Loops(self._store.now, self._outages)
        self._owner = self._given_owner or _new_owner_name()
        self._loops.start("monitor", self.run_cycle, self._cycle_pause)
        for_the_lease: dict[str, Step] = {"probe": lambda _: self.probe(), "lease": self.renew_lease}
        for name, step in for_the_lease.items():
            self._loops.start(name, step, lambda: self._timing.lease / 3)
        at_intervals: dict[str, Step] = {
            "late": lambda _: self._reservations.record_unrecorded_jobs(),
            "slurm": lambda _: self.check_slurm(),
            "report": lambda _: self._health.write_report(),
            **{_loop_of(method): partial(self.deliver, method) for method in self._delivery.methods},
        }
        for name, step in at_intervals.items():
            self._loops.start(name, step, lambda: self._timing.interval)
        if (watch := self._outage_watch) is not None:
            self._loops.start("status", watch.exchange, lambda: REFRESH_SECONDS)
            self._loops.start("watch", lambda _: watch.watch(), lambda: _WATCH_SECONDS)

    def stop(self) -> None:
        """End the threads after their present work, and release the lease. May be called twice."""
        were_running = self._loops.stop()
        self._fencing_token = None
        if were_running:
            self._loops.run_step(lambda _: self._store.release_lease(self._owner))
            self._health.delete_report()
            if (watch := self._outage_watch) is not None:
                self._loops.run_step(lambda _: watch.withdraw())

    @contextmanager
    def _timing_cycle(self) -> Iterator[None]:
        """Record when the polling cycle began, log the end of one that hung, and report each end."""
        began = self._cycle_began = time.monotonic()
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
            raise
        finally:
            self._cycle_began = None
            took = time.monotonic() - began
            if self._fencing_token is None and took > self._timing.cycle_limit:
                logger.warning("the polling cycle that hung has ended after %.0f s", took)
            poller = self._poller
            self._pause = self._pace.next_pause(poller.slurm_seconds, took, has_changes=poller.has_changes)
            self._health.report_cycle(self._owner, took, self._pause, failure, poller.last_complete)

    def _cycle_pause(self) -> float:
        """Return the seconds until the next polling cycle, or the next attempt to lead."""
        return self._timing.interval if self._fencing_token is None else self._pause

    def _release_lease(self) -> None:
        """Release the lease if the process is the leader."""
        if self._fencing_token is not None:
            self._fencing_token = None
            self._store.release_lease(self._owner)

    def _wake_channels(self) -> None:
        """Let the channels of the process deliver at once."""
        for method in self._delivery.methods:
            self._loops.wake(_loop_of(method))


def _loop_of(method: str) -> str:
    """Return the name of the loop that delivers by this method."""
    return f"deliver-{method}"


def _new_owner_name() -> str:
    """Return a name by which the process leads, unique even after a fork."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
