"""The file, its tables, and its connections."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.errors import StoreRefused, StoreUnavailable
from app.models.record import utc_now
from app.store.sqlite.file import DatabaseFile

_MOST_IDLE = 8  # connections that are kept for the next call

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    uuid TEXT PRIMARY KEY,
    slurm_username TEXT NOT NULL,
    slurm_job_id INTEGER,
    slurm_job_state TEXT,
    is_open INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    submit_time INTEGER,
    task TEXT NOT NULL,
    job TEXT,
    idempotency_key TEXT UNIQUE,
    warnings TEXT NOT NULL,
    submission_error TEXT,
    alarm_at INTEGER,
    caller TEXT,
    kind TEXT
);
CREATE INDEX IF NOT EXISTS tasks_job_id ON tasks (slurm_job_id, created_at);
CREATE INDEX IF NOT EXISTS tasks_state ON tasks (slurm_job_state, created_at);
CREATE INDEX IF NOT EXISTS tasks_user ON tasks (slurm_username, slurm_job_state, created_at);
CREATE INDEX IF NOT EXISTS tasks_open ON tasks (is_open) WHERE is_open;
CREATE INDEX IF NOT EXISTS tasks_caller ON tasks (caller) WHERE is_open;
CREATE INDEX IF NOT EXISTS tasks_ended ON tasks (updated_at) WHERE NOT is_open;
CREATE INDEX IF NOT EXISTS tasks_reserved ON tasks (created_at)
    WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL AND submission_error IS NULL;
CREATE TABLE IF NOT EXISTS notifications (
    id TEXT PRIMARY KEY,
    uuid TEXT NOT NULL REFERENCES tasks (uuid) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    attempt_after INTEGER,
    claim TEXT,
    last_error TEXT,
    sent_at INTEGER,
    revived_at INTEGER,
    recipient TEXT,
    digest TEXT,
    message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS notifications_due ON notifications (method, attempt_after)
    WHERE attempt_after IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_uuid ON notifications (uuid, position);
CREATE INDEX IF NOT EXISTS notifications_status ON notifications (status);
CREATE INDEX IF NOT EXISTS notifications_gathered ON notifications (recipient) WHERE recipient IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_digest ON notifications (digest) WHERE digest IS NOT NULL;
CREATE TABLE IF NOT EXISTS windows (
    recipient TEXT PRIMARY KEY, until INTEGER NOT NULL, count INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS windows_until ON windows (until);
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, last_used_at INTEGER, revoked_at INTEGER, key TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL, fence INTEGER NOT NULL
);
"""
# Columns that files of an earlier version do not have.
_ADDED = (
    ("tasks", "alarm_at INTEGER"),
    ("tasks", "caller TEXT"),
    ("tasks", "kind TEXT"),
    ("notifications", "revived_at INTEGER"),
    ("notifications", "recipient TEXT"),
    ("notifications", "digest TEXT"),
)


class SqliteDatabase:
    """A pool of connections to one file; every write is one transaction.

    Raises:
        StoreUnavailable: From every method, for whatever goes wrong with the file.
    """

    def __init__(
        self, path: Path, timeout: float = 5, *, host_clock: Callable[[], datetime] = utc_now
    ) -> None:
        """`timeout`: seconds that a statement waits for another process's write."""
        self._host_clock = host_clock
        self._path = path
        self._file = DatabaseFile(path)
        self._timeout = timeout
        self._opening = threading.Lock()
        self._first: sqlite3.Connection | None = None  # never used; see _open
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_MOST_IDLE)

    def prepare(self) -> None:
        """Create the file, its tables and its indexes, as far as they are missing.

        Raises:
            StoreRefused: The file cannot be used.
        """
        self._file.create()
        with self.writing() as connection:
            _add_columns(connection)
        with self.reading() as connection:
            connection.executescript(_SCHEMA)
        with self.reading() as connection:  # SQLite opens a read-only file without an error
            connection.execute("DELETE FROM leases WHERE FALSE")

    def record_count(self) -> int | None:
        """Return how many records there are; None if the file or its tables do not exist yet."""
        if not self._path.exists():
            return None
        with self.reading() as connection:
            if not connection.execute("PRAGMA table_info(tasks)").fetchall():
                return None
            count: int = connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
        return count

    def now(self) -> datetime:
        """Return the host's time: all processes that share the file run on one host."""
        return self._host_clock()

    def ping(self) -> None:
        """Read from the file."""
        with self.reading() as connection:
            connection.execute("SELECT 1")

    def close(self) -> None:
        """Close the connections; no other thread may use the store any more."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
        if self._first is not None:
            self._first.close()
            self._first = None
        self._file.forget()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that no other thread uses meanwhile."""
        self._file.check()
        try:
            connection = self._take()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        try:
            yield connection
        except sqlite3.Error as error:
            connection.close()  # whatever is wrong with it: the next call has a fresh one
            raise self._unavailable(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction; commit, and check that the file is still in its place."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            self._file.check()  # otherwise a file that was removed meanwhile has the change

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._open()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        """Return a new connection.

        The first one only keeps the files beside the database. SQLite removes these when the last connection
        is closed, and cannot make them again on a full disk, not even for a reader.
        """
        with self._opening:
            if self._first is None:
                self._first = self._file.connect(self._timeout)
                self._file.remember()
        connection = self._file.connect(self._timeout)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        if (words := self._file.refusal(error)) is not None:
            return StoreRefused(words)
        return StoreUnavailable(f"the store {self._path} does not answer: {error}")


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def milliseconds_if_any(at: datetime | None) -> int | None:
    return milliseconds(at) if at is not None else None


def moment(number: int) -> datetime:
    return datetime.fromtimestamp(number / 1000, UTC)


def moment_if_any(number: int | None) -> datetime | None:
    return moment(number) if number is not None else None


def _add_columns(connection: sqlite3.Connection) -> None:
    for table, column in _ADDED:
        there = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
        if there and column.split()[0] not in there:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
