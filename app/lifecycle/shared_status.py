"""Keep what all processes know of Slurm at hand, so that a request reads it without the store."""

from collections.abc import Mapping
from datetime import datetime

from app.store.shared_status import OutageReport, SharedStatus, SharedStatusStore

REFRESH_SECONDS = 0.25  # between two readings


class StatusReader:
    """The last shared status that this process has read. Thread-safe.

    Nothing is known until a loop of the monitor calls `refresh`.
    """

    def __init__(self, store: SharedStatusStore) -> None:
        """Begin without knowledge. `store`: where all processes share their status."""
        self._store = store
        self._status = SharedStatus()

    @property
    def polled_at(self) -> datetime | None:
        """Return when the last complete poll of the leader began, by the store's clock; None if unknown."""
        return self._status.polled_at

    @property
    def outages(self) -> Mapping[str, OutageReport]:
        """Return the outages of Slurm that processes report, by the name of the process."""
        return self._status.outages

    def refresh(self, now: datetime) -> None:
        """Read the shared status. `now`: the store's time.

        Raises:
            StoreUnavailable: The store does not answer; the last status stays.
        """
        self._status = self._store.read_shared_status(now)
