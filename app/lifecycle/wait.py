"""Wait until tasks begin, change or end: the parameter `wait` of `GET /monitor/...`."""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from app.lifecycle.state_subscriptions import StateSubscriptions, Subscription
from app.models.record_state import RecordState, Wait

_CLIENT_CHECK_SECONDS = 1.0  # how often a request finds out whether its client is still there
_RETRY_SPREAD = 4  # waiting requests for each second over which the retries of refused requests are spread


class RequestSlot(Protocol):
    """The slot of a request: one of the few that the server runs at a time."""

    def give_back(self) -> AbstractContextManager[bool]:
        """Give the slot to other requests during the block; yield False if too many requests wait."""

    def has_client_left(self) -> bool:
        """Return whether the client has closed its connection."""


class UnlimitedSlot:
    """The slot of a request on a server without slots."""

    def give_back(self) -> AbstractContextManager[bool]:
        """Let the request wait."""
        return nullcontext(True)

    def has_client_left(self) -> bool:
        """Return False, because nothing is known about the client."""
        return False


class TaskWaiting:
    """The use case of a request that waits. It reads the store only, and never asks Slurm. Thread-safe."""

    def __init__(
        self,
        subscriptions: StateSubscriptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        client_check: float = _CLIENT_CHECK_SECONDS,
    ) -> None:
        """Create the use case.

        Args:
            subscriptions: The waiting requests of this process.
            clock: Returns the seconds of a monotonic clock.
            client_check: How often to find out whether the client is still there, in seconds.
        """
        self._subscriptions = subscriptions
        self._clock = clock
        self._client_check = client_check

    def wait(
        self, find: Callable[[], Mapping[str, RecordState]], wanted: Wait, slot: RequestSlot
    ) -> int | None:
        """Wait for the condition, or until the time is over; look the records up again afterwards.

        Args:
            find: Returns the states of the records, by their keys in the store. Its errors are raised.
            wanted: How long to wait, and for what.
            slot: The slot of the request, which is given back meanwhile.

        Returns:
            The seconds after which to send the request again, if it could not wait as long as it wanted.

        Raises:
            StoreUnavailable: The store was unavailable when the wait was over. Many requests may end then, so
                they do not try the store one after another.
        """
        deadline = self._clock() + wanted.seconds
        known = find()
        if wanted.until.is_met(known, known) or wanted.seconds == 0:
            return None
        with slot.give_back() as may_wait:
            if not may_wait:
                return self._choose_retry_after()
            with self._subscriptions.subscribe(known, wanted.until) as subscription:
                return self._wait(subscription, deadline, slot)

    def stop(self) -> None:
        """Have all waiting requests answered at once, and accept no further ones."""
        self._subscriptions.close()

    def _wait(self, subscription: Subscription, deadline: float, slot: RequestSlot) -> int | None:
        is_over = False
        while not is_over and (seconds := deadline - self._clock()) > 0 and not slot.has_client_left():
            is_over = subscription.wait(min(seconds, self._client_check))
        if subscription.is_met:
            return None
        self._subscriptions.require_store()
        return 1 if is_over else None

    def _choose_retry_after(self) -> int:
        """Return a random number of seconds, which grows with the number of waiting requests."""
        return random.randint(1, 2 + len(self._subscriptions) // _RETRY_SPREAD)  # noqa: S311 - jitter
