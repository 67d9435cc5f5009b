"""Refuse the requests of callers at once while the store is known to be unavailable: a circuit breaker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.errors import StoreTimeout

_is_refusable: ContextVar[bool] = ContextVar("is_refusable", default=False)


def allow_refusal() -> None:
    """Let circuit breakers refuse operations of the current request, until the store has answered one.

    What follows an answer is never refused, such as the acceptance of a job whose uuid was reserved. Loops
    and commands do not call this, so they are never refused.
    """
    _is_refusable.set(True)


class StoreBreaker:
    """Circuit breaker of one process, for all its operations on one store. Thread-safe.

    An operation that times out opens the circuit, unless another one was answered meanwhile. While the
    circuit is open, only one request at a time waits for the store. Any answer closes the circuit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a closed breaker. `clock`: seconds of a monotonic clock."""
        self._clock = clock
        self._lock = threading.Lock()
        self._answered_at = float("-inf")
        self._reason: str | None = None  # why the store is unavailable; None while closed
        self._is_probed = False  # by the one request that waits

    @contextmanager
    def guarding(self, within: float | None = None) -> Iterator[None]:
        """Guard the operation in the block.

        Args:
            within: The operation's own limit in seconds, if it has one. Such an operation does not open the
                circuit, because its limit may be shorter than the election of a primary. While the circuit is
                open, it does not wait.

        Raises:
            StoreTimeout: The circuit is open, and the operation may be refused.
        """
        is_probe = self._begin(has_limit=within is not None)
        began = self._clock()
        try:
            yield
        except StoreTimeout as error:
            if within is None:
                self._record_timeout(str(error), began)
            raise
        else:
            self._record_answer()
        finally:
            if is_probe:
                self._is_probed = False

    def _begin(self, *, has_limit: bool) -> bool:
        """Return whether the operation belongs to the one request that waits while the circuit is open.

        Raises:
            StoreTimeout: The circuit is open, and the operation may be refused.
        """
        if self._reason is None or not _is_refusable.get():
            return False
        with self._lock:
            if self._reason is None:  # the store has answered in this moment
                return False
            if self._is_probed or has_limit:
                raise StoreTimeout(f"the store has not been answering: {self._reason}")
            self._is_probed = True
        return True

    def _record_answer(self) -> None:
        if _is_refusable.get():
            _is_refusable.set(False)
        with self._lock:
            self._answered_at, self._reason = self._clock(), None

    def _record_timeout(self, reason: str, began: float) -> None:
        with self._lock:
            if began > self._answered_at:
                self._reason = reason
