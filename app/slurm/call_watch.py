"""Watch the calls that wait for an answer, to notice an outage before the first of them fails.

While slurmctld is down, slurmrestd answers a call after 9 to 20 s, but a ping after 1 ms (24.11, 26.05).
Therefore slurmctld is pinged while a call waits and no other call is answered.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SUSPICIOUS_SECONDS = 0.1  # slurmctld is pinged after this time without an answer; most answers take 2 ms
_PING_INTERVAL = 0.5  # seconds between the beginnings of the first two pings; doubles with each further one
_MAX_PING_INTERVAL = 2.0  # so that a slurmctld that stays slow is pinged less often
_RECENT_PING = 10.0  # seconds after a ping until the next one counts as a first one
_LATE_PING_SECONDS = 0.5  # further calls wait for the outcome of a ping that takes longer


class CallWatch:
    """Watch of the calls of one process to slurmctld that wait for an answer. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a call. `clock`: seconds of a monotonic clock."""
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[object, float] = {}  # when each call began
        self._ping_began = float("-inf")
        self._ping_interval = _PING_INTERVAL
        self._may_call = threading.Event()  # cleared while a ping is under way
        self._may_call.set()
        self.answered_at = float("-inf")  # when slurmctld last answered

    @contextmanager
    def waiting(self) -> Iterator[float]:
        """Count a call as waiting for its answer; yield the time of its beginning."""
        call = object()
        with self._lock:
            began = self._calls[call] = self._clock()
        try:
            yield began
        finally:
            with self._lock:
                del self._calls[call]

    def record_answer(self) -> None:
        """Record an answer of slurmctld, to any call."""
        self.answered_at = self._clock()
        self.release_waiting()

    def is_ping_due(self) -> bool:
        """Return whether a call has waited for a moment without any answer, and no ping was sent recently."""
        with self._lock:
            oldest = min(self._calls.values(), default=None)
        now = self._clock()
        return (
            oldest is not None
            and now - max(oldest, self.answered_at) >= _SUSPICIOUS_SECONDS
            and now - self._ping_began >= self._ping_interval
        )

    @contextmanager
    def pinging(self) -> Iterator[float]:
        """Make further calls wait while this ping is late; yield the time at which it began."""
        now = self._clock()
        is_first = now - self._ping_began > _RECENT_PING
        self._ping_interval = _PING_INTERVAL if is_first else min(2 * self._ping_interval, _MAX_PING_INTERVAL)
        self._ping_began = now
        self._may_call.clear()
        try:
            yield self._ping_began
        finally:
            self.release_waiting()

    def is_ping_late(self) -> bool:
        """Return whether a ping is late, so that a further call would have to wait, too."""
        return not self._may_call.is_set() and self._clock() - self._ping_began >= _LATE_PING_SECONDS

    def wait_for_ping(self, seconds: float) -> float:
        """Wait for any answer, the end of the ping, or the end of the time; return the seconds waited."""
        began = self._clock()
        self._may_call.wait(seconds)
        return self._clock() - began

    def release_waiting(self) -> None:
        """Start the calls that wait for the outcome of a ping."""
        if not self._may_call.is_set():
            self._may_call.set()
