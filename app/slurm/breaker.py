"""A circuit breaker: answer at once while Slurm is known to be down, and probe whether it is back."""

import logging
import threading
import time
from collections.abc import Callable

from app.errors import SlurmUnavailable
from app.outages import OutageLog
from app.slurm.call_watch import CallWatch

logger = logging.getLogger(__name__)

_FAILURES = 3  # in a row, before failures that do not prove an outage open the circuit
_PAUSE = 1.0  # seconds before the first probe, and after each probe that fails


class CircuitBreaker:
    """Circuit breaker of one process, for all its sessions with one slurmrestd. Thread-safe.

    A failure that proves an outage opens the circuit at once, other failures open it after three in a row.
    While the circuit is open, only a probe waits for Slurm, in a thread of its own. An answer closes it.
    The available libraries serialise all calls, or let a caller wait for the time-out of the probe.

    Attributes:
        calls: The calls that wait for an answer of slurmctld.
        clock: Seconds of a monotonic clock.
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
        self.calls = CallWatch(clock)
        self.clock = clock
        self._outages = outages or OutageLog()
        self._source = f"circuit breaker {id(self)}"
        self._probe = probe
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at: float | None = None  # None while closed
        self._probing = False
        self._on_outage: list[Callable[[], object]] = []
        self._is_reported = False  # whether another process has reported the outage, which logs it
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Return whether Slurm is known to be down."""
        return self._probe_at is not None

    @property
    def reason(self) -> str | None:
        """Return why Slurm is known to be down; None while the circuit is closed."""
        return self._reason if self.is_open else None

    def call_on_outage(self, function: Callable[[], object]) -> None:
        """Call a function each time this process finds that Slurm is down."""
        self._on_outage.append(function)

    def require_closed(self) -> None:
        """Check the circuit, and start a probe if one is due.

        Raises:
            SlurmUnavailable: The circuit is open.
        """
        if self.is_open:
            self.probe_if_due()
            raise SlurmUnavailable(f"Slurm has not been answering: {self._reason}")

    def probe_if_due(self) -> None:
        """Start a probe if the circuit is open and the pause after the last probe is over."""
        with self._lock:
            due = self._probe_at is not None and self.clock() >= self._probe_at
            if due and not self._probing:
                self._start_probe()

    def record_success(self) -> None:
        """Record an answer, which closes the circuit."""
        self.calls.record_answer()
        with self._lock:
            was_open = self.is_open
            self._failures, self._probe_at = 0, None
            was_reported, self._is_reported = self._is_reported, False
        if was_open and was_reported:
            logger.info("Slurm answers this process: the outage that another process reported is over here")
        elif was_open:
            self._outages.record_success(self._source)

    def record_failure(
        self, reason: str, details: str | None = None, *, proven_since: float | None = None
    ) -> None:
        """Record a failure; several in a row, or one that proves an outage, open the circuit.

        Args:
            reason: The reason, for callers.
            details: The reason for the log, if it differs.
            proven_since: When the call began, if the failure proves an outage. The failure proves nothing if
                another call has been answered since.
        """
        is_proof = proven_since is not None and proven_since >= self.calls.answered_at
        with self._lock:
            self._failures += 1
            if self._probe_at is None or is_proof:
                self._reason = reason
            opens = self._probe_at is None and (is_proof or self._failures >= _FAILURES)
            if opens:
                self._probe_at = self.clock() + _PAUSE
            is_open = self.is_open
        if opens:
            self._end_calls()
        if is_open:
            self._log_failure(details or reason)

    def open_on_report(self, reason: str) -> None:
        """Open the circuit because another process has reported an outage, and probe at once."""
        with self._lock:
            if self._probe_at is not None:
                return
            self._probe_at, self._reason, self._is_reported = self.clock(), reason, True
        self.calls.release_waiting()
        logger.info("another process reports an outage of Slurm: %s", reason)
        self.probe_if_due()

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
                if self._probe_at is not None:  # another call may have been answered meanwhile
                    self._probe_at, self._reason = self.clock() + _PAUSE, str(error)
            self._end_calls()
            self._log_failure(str(error))
        else:
            self.record_success()
        finally:
            with self._lock:
                self._probing = False

    def _end_calls(self) -> None:
        """End the calls that wait, as far as they can be ended."""
        self.calls.release_waiting()
        for function in self._on_outage:
            function()

    def _log_failure(self, reason: str) -> None:
        """Log a failure while the circuit is open, unless another process reported and logs it."""
        if not self._is_reported:
            self._outages.record_failure("Slurm", reason, self._source)
