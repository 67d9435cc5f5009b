"""The embedded store: one SQLite file (WAL), for several threads and processes of one host."""

from app.store.sqlite.keys import SqliteKeys
from app.store.sqlite.outbox import SqliteOutbox
from app.store.sqlite.records import SqliteRecords


class SqliteStore(SqliteRecords, SqliteOutbox, SqliteKeys):
    """A TaskStore for the processes of one host."""


__all__ = ["SqliteStore"]
