"""A circuit breaker: answer at once while Slurm is known to be down, and probe whether it is back."""

import logging
import threading
import time
from collections.abc import Callable

from app.errors import SlurmUnavailable
from app.outages import OutageLog

logger = logging.getLogger(__name__)

_FAILURES = 3  # in a row, before the circuit opens
_MIN_PAUSE = 1.0  # seconds before the first probe; doubles with every probe that fails
_MAX_PAUSE = 15.0


class CircuitBreaker:
    """Circuit breaker that opens after several failures in a row. Thread-safe.

    While it is open, only a probe waits for Slurm, in a thread of its own. The libraries at hand serialise
    all calls, or let a caller wait for the time-out of the probe.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        outages: OutageLog | None = None,
    ) -> None:
        """Begin closed.

        Args:
            probe: Sends a request to Slurm; raises an exception while Slurm is down.
            clock: Seconds of a monotonic clock.
            outages: The log of outages.
        """
        self._outages = outages or OutageLog()
        self._source = f"circuit breaker {id(self)}"
        self._probe = probe
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = _MIN_PAUSE
        self._probe_at: float | None = None  # None while closed
        self._probing = False
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Return whether Slurm is known to be down."""
        return self._probe_at is not None

    @property
    def reason(self) -> str | None:
        """Return why Slurm is known to be down; None while the circuit is closed."""
        return self._reason if self.is_open else None

    def require_closed(self) -> None:
        """Start a probe if one is due.

        Raises:
            SlurmUnavailable: The circuit is open.
        """
        with self._lock:
            if self._probe_at is None:
                return
            if not self._probing and self._clock() >= self._probe_at:
                self._start_probe()
            raise SlurmUnavailable(f"Slurm has not been answering: {self._reason}")

    def record_success(self) -> None:
        """Record an answer, which closes the circuit."""
        with self._lock:
            was_open = self.is_open
            self._failures, self._pause, self._probe_at = 0, _MIN_PAUSE, None
        if was_open:
            self._outages.record_success(self._source)

    def record_failure(self, reason: str, details: str | None = None) -> None:
        """Record a failure; several in a row open the circuit.

        Args:
            reason: The reason, for callers.
            details: The reason for the log, if it differs.
        """
        with self._lock:
            self._failures += 1
            self._reason = reason
            if self._probe_at is None and self._failures >= _FAILURES:
                self._probe_at = self._clock() + self._pause
            is_open = self.is_open
        if is_open:
            self._outages.record_failure("Slurm", details or reason, self._source)

    def _start_probe(self) -> None:
        probe = threading.Thread(target=self._run_probe, name="slurm-probe", daemon=True)
        self._probing = True
        try:
            probe.start()
        except RuntimeError as error:  # no thread can be started now; the next caller tries again
            self._probing = False
            logger.warning("Slurm is not probed: %s", error)

    def _run_probe(self) -> None:
        try:
            self._probe()
        except Exception as error:  # whatever it is, Slurm cannot be used yet
            with self._lock:
                self._pause = min(2 * self._pause, _MAX_PAUSE)
                self._probe_at, self._reason = self._clock() + self._pause, str(error)
            self._outages.record_failure("Slurm", str(error), self._source)
        else:
            self.record_success()
        finally:
            with self._lock:
                self._probing = False
