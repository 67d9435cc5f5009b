"""Keep the shared status in memory, so that requests need no read from the store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.store.shared_status import OutageReport, SharedStatus, SharedStatusStore

REFRESH_SECONDS = 0.25  # between two readings
_WRITE_TIME = timedelta(seconds=5)  # from the time of a change until other processes can read the change


@dataclass(frozen=True, slots=True)
class LastPoll:
    """Last complete poll of the leader: see CompletePoll.

    Attributes:
        began: When the poll began, by the store's clock.
        age: How many seconds ago the poll began.
        uncovered: The ids of the jobs whose records may have been behind.
    """

    began: datetime
    age: float
    uncovered: frozenset[int]

    def covers(self, job_id: int, changed_at: datetime) -> bool:
        """Return whether the record of a job had the job's state when the poll began; never for an array.

        Args:
            job_id: The id of the job, which is no array.
            changed_at: When the record of the job last changed; the poll may have missed a new record.
        """
        return job_id not in self.uncovered and changed_at + _WRITE_TIME <= self.began


class StatusReader:
    """Reader of the shared status, which keeps the last one. Thread-safe.

    Nothing is known until a loop of the monitor calls `refresh`.
    """

    def __init__(self, store: SharedStatusStore, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a reader that has read nothing.

        Args:
            store: Where all processes share their status.
            clock: Seconds of a monotonic clock.
        """
        self._store = store
        self._clock = clock
        self._last = (SharedStatus(), datetime.min.replace(tzinfo=UTC), clock())  # with the times of reading

    @property
    def last_poll(self) -> LastPoll | None:
        """Return the last complete poll of the leader; None if none is known."""
        status, read_at, clock = self._last
        if status.polled_at is None:
            return None
        age = (read_at - status.polled_at).total_seconds() + self._clock() - clock
        return LastPoll(status.polled_at, age, status.uncovered)

    @property
    def outages(self) -> Mapping[str, OutageReport]:
        """Return the outages of Slurm that processes report, by the name of the process."""
        return self._last[0].outages

    def refresh(self, now: datetime) -> None:
        """Read the shared status. `now`: the store's time.

        Raises:
            StoreUnavailable: The store does not answer; the last status stays.
        """
        clock = self._clock()
        self._last = (self._store.read_shared_status(now), now, clock)
