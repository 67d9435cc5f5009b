"""Measure for how long Slurm is busy with our requests."""

import threading
import time
from collections.abc import Callable


class BusyTime:
    """Clock that runs while at least one request is under way: enter it for each request. Thread-safe.

    It does not count what this service does with the answers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at zero. `clock`: seconds of a monotonic clock."""
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = 0
        self._since = 0.0
        self._seconds = 0.0

    def __enter__(self) -> None:
        """Count a request that begins."""
        with self._lock:
            if self._requests == 0:
                self._since = self._clock()
            self._requests += 1

    def __exit__(self, *error: object) -> None:
        """Count the end of a request."""
        with self._lock:
            self._requests -= 1
            if self._requests == 0:
                self._seconds += self._clock() - self._since

    @property
    def seconds(self) -> float:
        """Return the seconds until now."""
        with self._lock:
            return self._seconds + (self._clock() - self._since if self._requests else 0.0)
