"""Remember the operators who authenticated a short while ago, for an outage of the store with the keys."""

import hashlib
import threading
import time
from collections.abc import Callable

_REMEMBERED_SECONDS = 900.0
_MAX_REMEMBERED = 100


class RecentOperators:
    """Memory of the keys and tokens with the scope monitor that were valid a short while ago. Thread-safe.

    Health and metrics matter most while the store is unavailable, when no key can be looked up. Only these
    two may rely on this memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing; `clock`: seconds of a monotonic clock."""
        self._clock = clock
        self._lock = threading.Lock()
        self._seen_at: dict[str, float] = {}

    def remember(self, authorization: str) -> None:
        """Remember a header that was valid at this moment."""
        with self._lock:
            self._seen_at.pop(name := _hash_header(authorization), None)
            self._seen_at[name] = self._clock()
            while len(self._seen_at) > _MAX_REMEMBERED:
                del self._seen_at[next(iter(self._seen_at))]

    def forget(self, authorization: str) -> None:
        """Forget a header that is no longer valid."""
        with self._lock:
            self._seen_at.pop(_hash_header(authorization), None)

    def knows(self, authorization: str) -> bool:
        """Return whether the header was valid a short while ago."""
        with self._lock:
            seen_at = self._seen_at.get(_hash_header(authorization))
        return seen_at is not None and self._clock() - seen_at <= _REMEMBERED_SECONDS


def _hash_header(authorization: str) -> str:
    return hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).hexdigest()
