"""The store in MongoDB: one document for each task, its notifications inside.

Writes wait for a majority of the servers and its journal. With `w: 1`, a crash may lose acknowledged
changes; this is used only for changes whose loss does no harm.
"""

from app.store.mongo.database import connect
from app.store.mongo.health import MongoHealthStore
from app.store.mongo.keys import MongoKeyStore
from app.store.mongo.lease import MongoLeaderLease
from app.store.mongo.lineage import MongoLineageStore
from app.store.mongo.notification_queue import MongoNotificationQueue
from app.store.mongo.rate_limiter import MongoRateLimiter
from app.store.mongo.record_pages import MongoRecordPages
from app.store.mongo.records import MongoRecordStore
from app.store.mongo.shared_status import MongoSharedStatus
from app.store.mongo.transfer import MongoTransfer


class MongoStore(
    MongoRecordStore,
    MongoLineageStore,
    MongoRecordPages,
    MongoNotificationQueue,
    MongoRateLimiter,
    MongoLeaderLease,
    MongoKeyStore,
    MongoTransfer,
    MongoHealthStore,
    MongoSharedStatus,
):
    """A TaskStore for any number of hosts."""


__all__ = ["MongoStore", "connect"]
