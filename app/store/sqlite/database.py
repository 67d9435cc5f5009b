"""The connections to the file, and the transactions."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from app.errors import StoreRefused, StoreTimeout, StoreUnavailable
from app.metrics import STORE_OPERATION_SECONDS, Metrics
from app.models.record import utc_now
from app.store.breaker import StoreBreaker
from app.store.schema_version import SCHEMA_VERSION, UNVERSIONED, require_known_version
from app.store.sqlite.file import DatabaseFile
from app.store.sqlite.schema import SCHEMA, add_missing_columns
from app.store.sqlite.write_turns import LOCKED, WriteTurns

_MAX_IDLE_CONNECTIONS = 8


class SqliteDatabase:
    """A pool of connections to one file; every write is one transaction.

    Every method raises StoreUnavailable for all that goes wrong with the file.
    """

    def __init__(
        self,
        path: Path,
        timeout: float = 5,
        *,
        host_clock: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        """Create a pool without connections.

        Args:
            path: The file.
            timeout: Seconds that a statement waits for another process's write.
            host_clock: Returns the time of this host.
            metrics: Where durations are counted.
        """
        self._host_clock = host_clock
        self._metrics = metrics or Metrics()
        self._path = path
        self._file = DatabaseFile(path)
        self._timeout = timeout
        self._turns = WriteTurns(timeout)
        self._breaker = StoreBreaker()  # of writes only, because in WAL mode a reader waits for no writer
        self._opening = threading.Lock()
        self._first: sqlite3.Connection | None = None  # never used; see _open_connection
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_MAX_IDLE_CONNECTIONS)

    def prepare(self) -> None:
        """Create the file, the tables and the indexes that are missing.

        Raises:
            StoreRefused: The file cannot be used.
        """
        self._file.create()
        with self.writing() as connection:
            require_known_version(_read_version(connection))
            add_missing_columns(connection)
        with self.reading() as connection:
            connection.executescript(SCHEMA)
        with self.writing() as connection:  # SQLite opens a read-only file without an error
            require_known_version(_read_version(connection))
            connection.execute("DELETE FROM leases WHERE FALSE")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def read_schema_version(self) -> int:
        """Return the number in the head of the file."""
        with self.reading() as connection:
            return _read_version(connection)

    def count_records(self) -> int | None:
        """Return how many records there are; None if the file or the tables do not exist yet."""
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
        """Return if the file can be read."""
        with self.reading() as connection:
            connection.execute("SELECT 1")

    def close(self) -> None:
        """Close the connections; no other thread may use the store any more."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
        if self._first is not None:
            self._first.close()
            self._first = None
        self._file.forget_identities()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that no other thread uses meanwhile.

        Raises:
            StoreRefused: The file was removed or replaced, or cannot be used.
            StoreUnavailable: SQLite reports another failure.
        """
        with self._metrics.timing(STORE_OPERATION_SECONDS, "read"), self._using_connection() as connection:
            yield connection

    @contextmanager
    def _using_connection(self) -> Iterator[sqlite3.Connection]:
        self._file.check_identities()
        try:
            connection = self._take_connection()
        except sqlite3.Error as error:
            raise self._to_store_error(error) from error
        try:
            yield connection
        except sqlite3.Error as error:
            connection.close()  # it may be broken; the next call gets a new one
            raise self._to_store_error(error) from error
        except BaseException:
            self._return_connection(connection)
            raise
        self._return_connection(connection)

    @contextmanager
    def writing(self, within: float | None = None, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction; commit, and check that the file is still in place.

        Args:
            within: Seconds to wait for other writes, instead of the configured time.
            durable: Whether to wait for the disk. Without that, a crash of the host may lose the change, but
                no crash of this process. The next durable change makes it durable, too.

        Raises:
            StoreRefused: The file was removed or replaced, or cannot be used.
            StoreTimeout: Another process has not let this one write in time.
            StoreUnavailable: SQLite reports another failure, or the circuit is open.
        """
        seconds = self._timeout if within is None else min(within, self._timeout)
        with (
            self._breaker.guarding(within),
            self._metrics.timing(STORE_OPERATION_SECONDS, "write"),
            self._using_connection() as connection,
        ):
            with self._turns.transaction(connection, seconds, durable=durable):
                yield connection
            self._file.check_identities()  # a file that was removed meanwhile would lose the change

    def _take_connection(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._open_connection()

    def _return_connection(self, connection: sqlite3.Connection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _open_connection(self) -> sqlite3.Connection:
        """Return a new connection.

        The first one only keeps the files beside the database. SQLite removes these when the last connection
        is closed, and cannot make them again on a full disk, not even for a reader.
        """
        with self._opening:
            if self._first is None:
                self._first = self._file.connect(self._timeout)
                self._file.remember_identities()
        connection = self._file.connect(self._timeout)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _to_store_error(self, error: sqlite3.Error) -> StoreUnavailable:
        """Return the error of this service for one of SQLite."""
        if (explanation := self._file.explain_error(error)) is not None:
            return StoreRefused(explanation)
        kind = StoreTimeout if str(error) == LOCKED else StoreUnavailable
        return kind(f"the store {self._path} does not answer: {error}")


def _read_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of the file; SQLite reports 0 for a file without one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) or UNVERSIONED
