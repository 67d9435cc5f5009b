"""Limit failed attempts to authenticate, and the number of their log lines."""

import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_WINDOW_SECONDS = 60.0
_MAX_ADDRESSES = 10_000  # that are counted separately in one window
_LOGGED_ADDRESSES = 20  # all addresses together may fill the log with this many times the limit of one


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The treatment of one failed attempt."""

    is_over_limit: bool
    is_logged: bool
    seconds_left: float  # until the window ends


class FailedAttempts:
    """A counter of failed attempts by address, in windows of one minute, for one process.

    The count never refuses a valid key, so that callers behind one proxy do not lock each other out.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin the first window. `limit`: allowed attempts of one address in a minute; 0 for any number."""
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._begin_window(clock())

    def count(self, address: str) -> FailedAttempt:
        """Count a failed attempt from that address."""
        with self._lock:
            now = self._clock()
            if now >= self._ends:
                self._log_omitted()
                self._begin_window(now)
            key = _network_of(address)
            if key not in self._counts and len(self._counts) >= _MAX_ADDRESSES:
                key = "further addresses"
            self._counts[key] += 1
            is_over_limit = bool(self._limit) and self._counts[key] > self._limit
            is_log_full = bool(self._limit) and self._logged >= self._limit * _LOGGED_ADDRESSES
            is_logged = not (is_over_limit or is_log_full)
            self._record_logging(key, is_logged)
            return FailedAttempt(is_over_limit, is_logged, self._ends - now)

    def _begin_window(self, now: float) -> None:
        self._counts: Counter[str] = Counter()
        self._logged = self._omitted = 0
        self._ends = now + _WINDOW_SECONDS

    def _record_logging(self, key: str, is_logged: bool) -> None:
        """Count logged and omitted attempts; at the first omitted one, log that further ones follow."""
        self._logged += is_logged
        self._omitted += not is_logged
        if not is_logged and self._omitted == 1:
            words = "too many failed attempts to authenticate from %s: further ones are counted, not logged"
            logger.warning(words, key)

    def _log_omitted(self) -> None:
        if self._omitted:
            frequent = ", ".join(f"{count} from {key}" for key, count in self._counts.most_common(3))
            words = "%d failed attempts to authenticate were not logged; the most frequent: %s"
            logger.warning(words, self._omitted, frequent)


def _network_of(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, which one host has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, 64), strict=False))
