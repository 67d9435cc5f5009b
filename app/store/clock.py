"""The store's clock, which all processes that share a store use."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Protocol

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE = timedelta(seconds=5)  # by which processes may disagree about the store's time
NEVER = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


class StoreClock(Protocol):
    """A clock in UTC, to the millisecond. Every time that a store keeps or compares comes from this clock."""

    def now(self) -> datetime:
        """Return the store's time. Few calls need a request to the database.

        Raises:
            StoreUnavailable: The store's time was never read, and cannot be read now.
        """


def log_clock_set_back(subject: str) -> None:
    """Log that `subject` ends later than possible and is therefore taken over.

    Args:
        subject: A lease, a claim, a retry or a window, with the time of its end.
    """
    logger.warning("%s lasts longer than possible, because a clock was set back; it is taken over", subject)
