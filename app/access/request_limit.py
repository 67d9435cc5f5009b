"""Limit the requests of each caller, over all processes, without a write for each request."""

import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.clock import steady_seconds
from app.errors import StoreUnavailable
from app.store.clock import CLOCK_TOLERANCE
from app.store.rate_limiter import RateLimiter, RateLimitUse

logger = logging.getLogger(__name__)

_WINDOW: Final = timedelta(minutes=1)
_BATCHES_IN_LIMIT = 60
_MAX_CALLERS = 10_000  # whose windows a process remembers
_PAUSE_SECONDS = 10.0  # without counting, after the store could not count a request


@dataclass(slots=True)
class _Window:
    """Last window of one caller, as far as this process knows it."""

    until: datetime | None = None  # None before the store was asked
    shared: int = 0  # requests of all processes that the store has counted
    unshared: int = 0  # further requests of this process
    sharing: threading.Lock = field(default_factory=threading.Lock)  # held while the store counts


class RequestLimit:
    """Rate limit of requests, which are counted for each caller in windows of one minute. Thread-safe.

    Each process counts in memory, and adds its count to the store's after each batch: a sixtieth of the
    limit. With less than a batch left, each request is counted in the store. So one process never exceeds the
    limit, and each further process exceeds it by less than a batch. A full window costs the store nothing.

    If the store can be read but not written, as on a full disk, requests are not counted for a while.
    """

    def __init__(self, rate_limiter: RateLimiter, limit: int) -> None:
        """Create a limit without windows. `limit`: how many requests a caller may send in a minute."""
        self._rate_limiter = rate_limiter
        self._limit = limit
        self._batch = max(1, limit // _BATCHES_IN_LIMIT)
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}
        self._count_again_at = 0.0

    def count(self, name: str) -> RateLimitUse | None:
        """Count a request of the caller with this name, if there is room.

        Return the state of the window; None if requests are not counted at the moment.
        """
        now = self._rate_limiter.now()
        window = self._find_window(name)
        if (use := self._count_in_memory(window, now)) is not None:
            return use
        with window.sharing:
            if (use := self._count_in_memory(window, now)) is not None:  # another thread has shared
                return use
            return self._share(name, window, now, 1)

    def count_left(self, name: str) -> int | None:
        """Share what this process has counted; return how many requests are left, or None as `count` does."""
        window = self._find_window(name)
        with window.sharing:
            use = self._share(name, window, self._rate_limiter.now(), 0)
        return use.left if use is not None else None

    def _find_window(self, name: str) -> _Window:
        with self._lock:
            if (window := self._windows.get(name)) is None:
                if len(self._windows) >= _MAX_CALLERS:  # what is not shared is less than a batch each
                    self._windows.clear()
                window = self._windows[name] = _Window()
            return window

    def _count_in_memory(self, window: _Window, now: datetime) -> RateLimitUse | None:
        """Count a request if the store need not know it yet; return None if the store must count it."""
        with self._lock:
            left = self._limit - window.shared - window.unshared
            if not _is_running(window, now):
                return None
            if left <= 0:
                return RateLimitUse(0, full_until=window.until)
            if window.unshared + 1 >= self._batch or left <= self._batch:
                return None
            window.unshared += 1
            return RateLimitUse(left - 1)

    def _share(self, name: str, window: _Window, now: datetime, uses: int) -> RateLimitUse | None:
        """Count some uses and all unshared ones in the store; return the state of the window."""
        if steady_seconds() < self._count_again_at:
            return None
        with self._lock:
            unshared = window.unshared if _is_running(window, now) else 0
        try:
            found = self._rate_limiter.add_uses(name, unshared + uses, now, now + _WINDOW)
        except StoreUnavailable as error:
            self._pause(error)
            return None
        with self._lock:
            is_same = window.until == found.until
            window.unshared = window.unshared - unshared if is_same else 0
            window.until, window.shared = found.until, found.count
        left = self._limit - found.count
        return RateLimitUse(left) if left >= 0 else RateLimitUse(0, full_until=found.until)

    def _pause(self, error: StoreUnavailable) -> None:
        self._count_again_at = steady_seconds() + _PAUSE_SECONDS
        words = "the rate limit is off for %.0f s, because requests cannot be counted: %s"
        logger.warning(words, _PAUSE_SECONDS, error)


def _is_running(window: _Window, now: datetime) -> bool:
    """Return whether the window runs; one that ends later than possible was stamped by another clock."""
    return window.until is not None and now < window.until <= now + _WINDOW + CLOCK_TOLERANCE
