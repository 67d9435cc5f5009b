"""The embedded store: one SQLite file (WAL), for several threads and processes of one host."""

from app.store.sqlite.health import SqliteHealthStore
from app.store.sqlite.keys import SqliteKeyStore
from app.store.sqlite.lease import SqliteLeaderLease
from app.store.sqlite.lineage import SqliteLineageStore
from app.store.sqlite.notification_queue import SqliteNotificationQueue
from app.store.sqlite.rate_limiter import SqliteRateLimiter
from app.store.sqlite.record_pages import SqliteRecordPages
from app.store.sqlite.records import SqliteRecordStore
from app.store.sqlite.shared_status import SqliteSharedStatus
from app.store.sqlite.transfer import SqliteTransfer


class SqliteStore(
    SqliteRecordStore,
    SqliteLineageStore,
    SqliteRecordPages,
    SqliteNotificationQueue,
    SqliteRateLimiter,
    SqliteLeaderLease,
    SqliteKeyStore,
    SqliteTransfer,
    SqliteHealthStore,
    SqliteSharedStatus,
):
    """A TaskStore for the processes of one host."""


__all__ = ["SqliteStore"]
