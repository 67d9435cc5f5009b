"""Let all waiting requests of a process share one narrow query of the store."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from app.errors import SlurmProxyError, StoreUnavailable
from app.models.record_state import RecordState, WaitCondition
from app.outages import OutageLog
from app.store.records import RecordStore

logger = logging.getLogger(__name__)

_INTERVAL = 0.5  # seconds between two queries
_BATCH_SIZE = 5000  # records in one query
_PAUSE_FACTOR = 9  # a query that took some time is followed by a pause of so many times that time
_MAX_PAUSE = 2.0  # seconds, of such a pause
_MAX_READING = 3.0  # seconds, of one query; a store that takes longer counts as unavailable
_LOOP = "waiting"


def _start_thread(loop: Callable[[], None]) -> None:
    threading.Thread(target=loop, name=_LOOP, daemon=True).start()


class Subscription:
    """Subscription of one waiting request: the states that were found, and the condition to wait for."""

    def __init__(self, known: Mapping[str, RecordState], condition: WaitCondition) -> None:
        """Create a subscription; `known`: the states that the request found, by store key."""
        self.known = known
        self._condition = condition
        self._is_over = threading.Event()
        self.is_met = False

    def notify(self, present: Mapping[str, RecordState]) -> None:
        """Wake up the request if these states meet its condition."""
        if self._condition.is_met(self.known, present):
            self.is_met = True
            self._is_over.set()

    def cancel(self) -> None:
        """Wake up the request although its condition is not met."""
        self._is_over.set()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether the subscription is over."""
        return self._is_over.wait(seconds)


class StateSubscriptions:
    """The waiting requests of one process. Thread-safe.

    A thread reads the states of their records from the store, and runs only while a request waits. Each
    reading is compared with the states that the request found before, so no change between the request's own
    reading and its subscription is lost. Slurm is never asked.
    """

    def __init__(
        self,
        store: RecordStore,
        outages: OutageLog | None = None,
        *,
        interval: float = _INTERVAL,
        max_reading: float = _MAX_READING,
        start_loop: Callable[[Callable[[], None]], object] = _start_thread,
    ) -> None:
        """Create subscriptions without a request.

        Args:
            store: The store with the records.
            outages: Where failures of the store are logged.
            interval: The seconds between two readings.
            max_reading: The seconds after which a store that has not answered counts as unavailable.
            start_loop: Starts the loop that reads the states.
        """
        self._store = store
        self._outages = outages or OutageLog()
        self._interval = interval
        self._max_reading = max_reading
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._start_loop = start_loop
        self._is_running = False
        self._wake = threading.Event()
        self._is_closed = False
        self._reading_since: float | None = None  # while the loop reads
        self._failure: StoreUnavailable | None = None  # of the last reading

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._subscriptions)

    @contextmanager
    def subscribe(self, known: Mapping[str, RecordState], condition: WaitCondition) -> Iterator[Subscription]:
        """Yield a subscription for the duration of the block; after `close`, the subscription is over."""
        subscription = Subscription(known, condition)
        with self._lock:
            self._subscriptions.add(subscription)
            if self._is_closed or not self._ensure_running():
                subscription.cancel()
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.discard(subscription)
                if not self._subscriptions:
                    self._wake.set()  # the loop ends

    def publish_states(self) -> None:
        """Read the states of all awaited records, and wake up the requests whose condition is met.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        with self._lock:
            subscriptions = list(self._subscriptions)
        keys = sorted({key for subscription in subscriptions for key in subscription.known})
        present: dict[str, RecordState] = {}
        for start in range(0, len(keys), _BATCH_SIZE):
            present |= self._store.find_states(keys[start : start + _BATCH_SIZE])
        for subscription in subscriptions:
            subscription.notify(present)

    def require_store(self) -> None:
        """Check that the last reading has succeeded, without asking the store.

        Raises:
            StoreUnavailable: The store did not answer, or has not answered for some seconds.
        """
        since = self._reading_since
        if since is not None and time.monotonic() - since > self._max_reading:
            raise StoreUnavailable("the store does not answer in time")
        if self._failure is not None:
            raise StoreUnavailable(str(self._failure))

    def read_soon(self) -> None:
        """Have the states read at once, because this process has just changed some of them."""
        self._wake.set()

    def close(self) -> None:
        """Wake up all waiting requests, and accept no further ones."""
        with self._lock:
            self._is_closed = True
            for subscription in self._subscriptions:
                subscription.cancel()
        self._wake.set()

    def _ensure_running(self) -> bool:
        """Start the loop unless it runs; return False if the process cannot have another thread."""
        if not self._is_running:
            self._failure = None
            try:
                self._start_loop(self._run)
            except RuntimeError:
                return False
            self._is_running = True
        return True

    def _run(self) -> None:
        while self._is_needed():
            began = time.monotonic()
            self._run_step()
            pause = max(self._interval, min(_PAUSE_FACTOR * (time.monotonic() - began), _MAX_PAUSE))
            if self._wake.wait(pause):
                self._wake.clear()

    def _is_needed(self) -> bool:
        """Return whether a request waits; if not, the next one starts the loop again."""
        with self._lock:
            if self._subscriptions and not self._is_closed:
                return True
            self._is_running = False
            return False

    def _run_step(self) -> None:
        """Publish the states. Requests go on waiting during an outage of the store, which may be short."""
        failure = None
        self._reading_since = time.monotonic()
        try:
            self.publish_states()
        except SlurmProxyError as error:
            failure = error if isinstance(error, StoreUnavailable) else None
            self._outages.record_failure(error.failing_part or error.code, str(error))
        except Exception as error:
            self._outages.record_failure(f"the loop {_LOOP}", type(error).__name__, exception=error)
        self._failure, self._reading_since = failure, None
