"""The store in MongoDB: one document for each task, its notifications inside.

Writes wait for a majority and its journal: `w: 1` alone loses acknowledged records in a crash.
"""

from app.store.mongo.database import connect
from app.store.mongo.keys import MongoKeys
from app.store.mongo.outbox import MongoOutbox
from app.store.mongo.records import MongoRecords


class MongoStore(MongoRecords, MongoOutbox, MongoKeys):
    """A TaskStore for any number of hosts."""


__all__ = ["MongoStore", "connect"]
