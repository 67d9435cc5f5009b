"""Limit the requests to Slurm that look-ups make, however many callers there are."""

import threading
import time
from collections.abc import Callable

from app.metrics import LOOK_UPS_OVER_BUDGET, Metrics

_BURST_SECONDS = 5.0  # the requests of this time may be made at once, after a time without requests
_MIN_CAPACITY = 4.0  # tokens; with fewer, less important requests would never get a token


class RequestBudget:
    """Token bucket with one token for each request. Thread-safe."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
    ) -> None:
        """Begin with a full bucket.

        Args:
            per_second: How many requests a second this process may make, on average.
            clock: Seconds of a monotonic clock.
            metrics: Where the requests are counted for which there was no token.
        """
        self._metrics = metrics or Metrics()
        self._per_second = per_second
        self._capacity = max(per_second * _BURST_SECONDS, _MIN_CAPACITY)
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = self._capacity
        self._filled_at = clock()

    def take(self, reserve: float = 0.0) -> bool:
        """Take a token for a request; return False if there is none.

        Args:
            reserve: The share of the bucket that is left to more important requests, from 0 to 1.
        """
        with self._lock:
            now = self._clock()
            gained = (now - self._filled_at) * self._per_second
            self._tokens = min(self._tokens + gained, self._capacity)
            self._filled_at = now
            is_taken = self._tokens - 1 >= reserve * self._capacity
            self._tokens -= is_taken
        if not is_taken:
            self._metrics.count(LOOK_UPS_OVER_BUDGET)
        return is_taken
