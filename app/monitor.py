"""The background threads: one that polls Slurm while it leads, and one for each channel."""

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

from app.errors import SlurmMisbehaved, SlurmProxyError, SlurmUnavailable
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.deliver import Delivery
from app.lifecycle.poll import Poller
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.reservations import Reservations
from app.outages import OutageLog
from app.slurm.client import SlurmClient
from app.store.lease import LeaderLease

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10.0  # how long stop() waits for each thread
_DUTY = 4  # the monitor leaves Slurm alone for this many times as long as it has kept it busy
_LONGEST_REST = 30.0  # seconds, for that reason


class Monitor:
    """Every process runs one; the lease in the store lets one of them poll at a time.

    `run_cycle` and `deliver` are given the store's time and need no thread.
    """

    def __init__(
        self,
        store: LeaderLease,
        reservations: Reservations,
        poller: Poller,
        reconciler: Reconciler,
        delivery: Delivery,
        *,
        clocks: ClockGuard,
        callers_slurm: SlurmClient | None = None,
        outages: OutageLog | None = None,
        owner: str | None = None,
        interval: float,
        lease: float,
        cycle_limit: float,
    ) -> None:
        """Create a monitor that does not run yet.

        `callers_slurm`: the client that callers use, where it is another one than the poller's.
        `cycle_limit`: seconds after which a polling cycle counts as hung, and its lease is renewed no more.
        """
        self._store = store
        self._reservations = reservations
        self._poller = poller
        self._reconciler = reconciler
        self._delivery = delivery
        self._given_owner = owner
        self._owner = owner or _identity()
        self._interval = interval
        self._lease = timedelta(seconds=lease)
        self._clocks = clocks
        self._outages = outages or OutageLog()
        self._callers_slurm = callers_slurm
        self._cycle_limit = cycle_limit
        self._cycle_began: float | None = None  # of the polling cycle that runs now
        self._fence: int | None = None  # while this process leads
        self._stopping = threading.Event()
        self._wake: dict[str, threading.Event] = {method: threading.Event() for method in delivery.methods}
        self._threads: list[threading.Thread] = []

    def run_cycle(self, now: datetime) -> bool:
        """Run one polling cycle; return False if this process does not lead.

        It leads if it holds the lease and the clocks agree.
        """
        if self._clocks.disagreement(now) is not None:
            self._resign()
            return False
        fence = self._fence = self._store.acquire_lease(self._owner, now, now + self._lease)
        if fence is None:
            return False
        with self._cycle():
            try:
                if self._poller.poll_once(now, fence):
                    self._messages_due()
            finally:  # a poll that fails must not prevent reconciling
                self._reconciler.reconcile(now, fence)
        return True

    def renew(self, now: datetime) -> None:
        """Renew the lease, also during a long polling cycle, but not while a cycle hangs.

        What a hung cycle writes after another process has taken over is refused by the fencing token.
        """
        if self._fence is None:
            return
        began = self._cycle_began
        if began is not None and time.monotonic() - began > self._cycle_limit:
            self._fence = None
            message = "the polling cycle has not ended within %.0f s; the lease is not renewed until it ends"
            logger.error(message, self._cycle_limit)
            return
        self._fence = self._store.acquire_lease(self._owner, now, now + self._lease)

    def probe(self) -> None:
        """Find out whether Slurm is back, and read its clock; every process does this."""
        self._poller.probe()
        self._clocks.measure()
        if self._callers_slurm is not None:
            with suppress(SlurmUnavailable, SlurmMisbehaved):
                self._callers_slurm.prepare()

    def deliver(self, method: str, now: datetime) -> None:
        """Sends all that is due by one channel."""
        began = time.monotonic()
        while not self._stopping.is_set():
            elapsed = timedelta(seconds=time.monotonic() - began)
            if not self._delivery.deliver_one(method, now + elapsed):
                break

    def start(self) -> None:
        """Start the threads; call this once, after any fork."""
        self._stopping.clear()
        self._owner = self._given_owner or _identity()
        self._spawn("monitor", self.run_cycle, self._stopping, self._interval)
        self._spawn("probe", lambda _: self.probe(), self._stopping, self._lease.total_seconds() / 3)
        self._spawn("late", lambda _: self._reservations.record_late(), self._stopping, self._interval)
        self._spawn("lease", self.renew, self._stopping, self._lease.total_seconds() / 3)
        for method, wake in self._wake.items():
            self._spawn(f"deliver-{method}", partial(self.deliver, method), wake, self._interval)

    def stop(self) -> None:
        """End the threads after their present work, and release the lease. May be called twice."""
        self._stopping.set()
        self._messages_due()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._fence = None
        if self._threads:
            self._guarded(lambda _: self._store.release_lease(self._owner))
        self._threads.clear()

    @contextmanager
    def _cycle(self) -> Iterator[None]:
        """Record since when the polling cycle runs."""
        began = self._cycle_began = time.monotonic()
        try:
            yield
        finally:
            self._cycle_began = None
            if self._fence is None and (took := time.monotonic() - began) > self._cycle_limit:
                logger.warning("the polling cycle that hung has ended after %.0f s", took)

    def _resign(self) -> None:
        """Release the lease if this process holds it."""
        if self._fence is not None:
            self._fence = None
            self._store.release_lease(self._owner)

    def _messages_due(self) -> None:
        """Lets the channels of this process look at once."""
        for wake in self._wake.values():
            wake.set()

    def _spawn(
        self, name: str, step: Callable[[datetime], object], wake: threading.Event, interval: float
    ) -> None:
        thread = threading.Thread(target=self._run, args=(step, wake, interval), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, step: Callable[[datetime], object], wake: threading.Event, interval: float) -> None:
        while not self._stopping.is_set():
            self._guarded(step)
            rest = interval
            if step == self.run_cycle:
                rest = max(interval, min(_DUTY * self._poller.slurm_seconds, _LONGEST_REST))
            woken = wake.wait(rest * random.uniform(1, 1.1))  # noqa: S311 - jitter, no secret
            if woken and wake is not self._stopping:
                wake.clear()

    def _guarded(self, step: Callable[[datetime], object]) -> None:
        """Run one step and log its errors, so that the loop goes on."""
        loop = threading.current_thread().name
        try:
            step(self._store.now())
        except SlurmProxyError as error:
            self._outages.failed(error.part or f"the loop {loop}", str(error), loop)
        except Exception as error:
            self._outages.failed(f"the loop {loop}", type(error).__name__, loop, error)
        else:
            self._outages.worked(loop)


def _identity() -> str:
    """The name by which this process leads: no two have the same, not even after a fork."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
