"""The backoff of receivers and channels that fail: their messages wait without an attempt."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.lifecycle.retry_policy import MAX_RETRY_AFTER, backoff_delay

FAILURES_BEFORE_BACKOFF = 3  # of different messages in a row
_FORGET_AFTER = timedelta(hours=1)  # after the end of a backoff


@dataclass(frozen=True, slots=True)
class ReceiverBackoff:
    """The backoff of one receiver, or of a whole channel, after a failure at `since`.

    The messages of a receiver in backoff delay no others of their channel. The messages of a channel in
    backoff are not tried one after another, because all would fail for the same reason.
    """

    since: datetime
    until: datetime
    reason: str
    failures: int  # of different messages, in a row
    message_id: str  # of the last message that failed


class ReceiverBackoffs:
    """The backoffs that one process knows, by the name of a receiver or a channel. Thread-safe."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        """Begin without failures. `jitter` returns a number between 0 and 1."""
        self._jitter = jitter
        self._backoffs: dict[str, ReceiverBackoff] = {}
        self._lock = threading.Lock()

    def find_running(
        self, names: Iterable[str], now: datetime, deadline: datetime, retried_at: datetime | None
    ) -> ReceiverBackoff | None:
        """Return the backoff under one of the names that a message has to wait for, or None.

        `deadline`: the message's retry deadline, beyond which no backoff delays it. `retried_at`: when an
        operator last retried the message; after that only a backoff that began later delays it.
        """
        # A backoff that ends later than possible is from before the clock was set back.
        latest = min(deadline, now + MAX_RETRY_AFTER)
        for name in names:
            backoff = self._backoffs.get(name)
            if backoff is None or not now < backoff.until <= latest:
                continue
            if retried_at is None or retried_at < backoff.since:
                return backoff
        return None

    def record_failure(
        self, name: str, message_id: str, reason: str, requested: timedelta, now: datetime
    ) -> None:
        """Record a failure; after several different messages in a row, a backoff begins.

        `requested`: the delay that the receiver asked for, which begins a backoff at once.
        """
        with self._lock:
            self._forget_old(now)
            last = self._backoffs.get(name)
            failures = last.failures if last else 0
            if last is None or last.message_id != message_id:
                failures += 1
            delay = requested
            if failures >= FAILURES_BEFORE_BACKOFF:
                attempts = failures - FAILURES_BEFORE_BACKOFF + 1
                delay = max(requested, backoff_delay(attempts, self._jitter()))
            self._backoffs[name] = ReceiverBackoff(now, now + delay, reason, failures, message_id)

    def record_success(self, *names: str) -> None:
        """Forget the failures under the given names."""
        with self._lock:
            for name in names:
                self._backoffs.pop(name, None)

    def _forget_old(self, now: datetime) -> None:
        self._backoffs = {
            name: backoff for name, backoff in self._backoffs.items() if now < backoff.until + _FORGET_AFTER
        }
