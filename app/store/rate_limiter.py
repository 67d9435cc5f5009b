"""The rate limits that all processes share: so many messages or requests in a window of time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.store.clock import StoreClock


@dataclass(frozen=True, slots=True)
class RateLimitUse:
    """The outcome of counting one use of a limit."""

    left: int  # further uses that the window has room for
    full_until: datetime | None = None  # if there was no room: when the window ends


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """Window of a limit that runs."""

    count: int  # uses, which may exceed the limit
    until: datetime


class RateLimiter(StoreClock, Protocol):
    """A counter of messages to receivers, and of requests of callers, in windows of time.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def acquire(self, name: str, limit: int, now: datetime, until: datetime) -> RateLimitUse:
        """Count one use of a limit, if there is room; return the state of the window.

        A window that ends later than `until` plus CLOCK_TOLERANCE shows that the clock was set back. A new
        window replaces it, and this is logged.

        Args:
            name: The name of the limit: whose messages or requests are counted.
            limit: How many uses a window has room for.
            now: The store's time.
            until: When a window ends that begins now.
        """

    def refund(self, name: str) -> None:
        """Take back one use, of a message that was not sent."""

    def add_uses(self, name: str, uses: int, now: datetime, until: datetime) -> RateLimitWindow:
        """Count uses that took place already, whatever the limit is; return the window with these uses.

        The arguments are those of `acquire`, and a window that ends too late is replaced as there.
        """
