"""Log outages without flooding the log: at the beginning, once a minute meanwhile, and at the end."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

CALLERS = "callers"  # the source of a failure that a request of a caller met
_INTERVAL = 60.0  # seconds between two lines about one outage
_MAX_BEGINNINGS = 3  # of outages of one part in an interval; a part may fail and work again every second
_CALLERS_QUIET = 15.0  # seconds without a failed request until an outage that only callers met counts as over
_FORGOTTEN = 3600.0  # seconds; longer than any pause between two attempts to send a message
_MAX_REMEMBERED = 1000  # messages


@dataclass(slots=True)
class _Outage:
    """State of one part; `sources` has the time of the last failure of each source, by its name."""

    began: float | None = None
    is_announced: bool = False
    logged_at: float = float("-inf")
    failures: int = 0
    sources: dict[str, float] = field(default_factory=dict)
    beginnings: list[float] = field(default_factory=list)  # logged in the last minute

    def is_due(self, now: float) -> bool:
        """Return whether to log a failure now."""
        if self.is_announced:
            return now - self.logged_at >= _INTERVAL
        self.beginnings = [at for at in self.beginnings if now - at < _INTERVAL]
        return len(self.beginnings) < _MAX_BEGINNINGS


class OutageLog:
    """Log of the outages that one process meets, by the part that fails. Thread-safe.

    Several sources may meet the same outage: the loops of the monitor, the circuit breakers and callers. The
    outage ends when each loop that met it has succeeded again.
    """

    def __init__(
        self, addresses: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without outages.

        Args:
            addresses: The addresses of the parts, for log lines; errors do not contain them.
            clock: Seconds of a monotonic clock.
        """
        self._addresses = addresses or {}
        self._clock = clock
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}

    def record_failure(
        self, part: str, why: str, source: str = CALLERS, exception: BaseException | None = None
    ) -> None:
        """Record that `part` has failed; log it if an outage begins, and then once a minute.

        Args:
            part: The part that failed.
            why: The reason.
            source: The name of the loop or circuit breaker that met the failure, or CALLERS.
            exception: An unexpected exception, whose traceback is logged.
        """
        now = self._clock()
        with self._lock:
            outage = self._outages.setdefault(part, _Outage())
            if outage.began is None:
                outage.began, outage.failures, outage.is_announced = now, 0, False
            outage.failures += 1
            outage.sources[source] = now
            if not outage.is_due(now):
                return
            is_first, outage.is_announced, outage.logged_at = not outage.is_announced, True, now
            outage.beginnings += [now] * is_first
            seconds, failures = now - outage.began, outage.failures
        address = f" ({self._addresses[part]})" if part in self._addresses else ""
        level = logging.WARNING if exception is None else logging.ERROR
        if is_first:
            logger.log(level, "outage of %s begins%s: %s", part, address, why, exc_info=exception)
        else:
            words = "outage of %s goes on%s, %d failures in %.0f s: %s"
            logger.log(level, words, part, address, failures, seconds, why, exc_info=exception)

    def record_success(self, source: str) -> None:
        """Record that `source` has succeeded, and log the outages that are over."""
        if not self._outages:
            return
        now = self._clock()
        over: list[tuple[str, float, int]] = []
        with self._lock:
            for name, outage in self._outages.items():
                if outage.began is None:
                    continue
                outage.sources.pop(source, None)
                outage.sources = {key: at for key, at in outage.sources.items() if _is_recent(key, now - at)}
                if not outage.sources:
                    if outage.is_announced:
                        over.append((name, now - outage.began, outage.failures))
                    outage.began = None
        for name, seconds, failures in over:
            logger.warning("outage of %s is over after %.0f s, %d failures", name, seconds, failures)


def _is_recent(source: str, seconds: float) -> bool:
    """Return whether a failure of some seconds ago still counts as an outage."""
    return seconds < (_CALLERS_QUIET if source == CALLERS else _FORGOTTEN)


class RepeatFilter(logging.Filter):
    """Filter that drops repeated warnings for some time: every polling cycle may meet the same fault."""

    def __init__(self, seconds: float, *, by_message: bool = False) -> None:
        """Make a filter.

        Args:
            seconds: How long a repeated warning is dropped.
            by_message: Whether warnings count as different if only their values differ.
        """
        super().__init__()
        self._seconds = seconds
        self._by_message = by_message
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        if record.levelno < logging.WARNING:
            return True
        key, now = record.getMessage() if self._by_message else str(record.msg), time.monotonic()
        if now - self._passed.get(key, float("-inf")) < self._seconds:
            return False
        if len(self._passed) >= _MAX_REMEMBERED:
            self._passed.clear()
        self._passed[key] = now
        return True
