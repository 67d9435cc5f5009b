"""The store: everything that slurm-proxy stores, in MongoDB or in one SQLite file.

Each module here describes one part of a store as a protocol. `mongo/` and `sqlite/` implement the protocol of
`x.py` in a file `x.py` of their own. A use case declares the protocols that it uses.
"""

from typing import Protocol

from app.store.health import HealthStore
from app.store.keys import KeyStore
from app.store.lease import LeaderLease
from app.store.lineage import LineageStore
from app.store.notification_queue import NotificationQueue
from app.store.rate_limiter import RateLimiter
from app.store.record_pages import RecordPages
from app.store.records import RecordStore
from app.store.shared_status import SharedStatusStore
from app.store.transfer import StoreTransfer


class TaskStore(
    RecordStore,
    LineageStore,
    RecordPages,
    NotificationQueue,
    RateLimiter,
    LeaderLease,
    KeyStore,
    StoreTransfer,
    HealthStore,
    SharedStatusStore,
    Protocol,
):
    """A whole store, as the composition root builds it.

    A change that a method has acknowledged survives a crash of the process. Every method raises
    StoreUnavailable if the database does not answer.
    """

    def prepare(self) -> None:
        """Connect, and create the indexes that the queries need.

        Raises:
            StoreRefused: The database cannot be used as it is, or a newer release wrote it.
        """

    def read_schema_version(self) -> int:
        """Return the schema version of the store, without preparing it; see `schema_version.py`."""

    def count_records(self) -> int | None:
        """Return about how many records there are; None if the store has not been created yet."""

    def ping(self) -> None:
        """Return if the database answers.

        Raises:
            StoreUnavailable: The database does not answer.
        """

    def close(self) -> None:
        """Close the connections."""
