"""Let the threads of a process write one at a time, and soon after another process has written.

SQLite's own busy handler sleeps for up to 100 ms between two attempts, in each thread. With eight threads
that write, one of them may wait for half a second although the file is free most of the time.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_RETRY_SECONDS = 0.0005  # between two attempts to begin while another process writes
LOCKED = "database is locked"  # SQLite's message


class WriteTurns:
    """Turns of the threads of this process to write to one file. Thread-safe."""

    def __init__(self, timeout: float) -> None:
        """Begin with no thread writing. `timeout`: seconds that other statements wait for a lock."""
        self._timeout = timeout
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self, connection: sqlite3.Connection, seconds: float, *, durable: bool) -> Iterator[None]:
        """Begin a transaction when it is this thread's turn, and commit at the end of the block.

        Args:
            connection: The connection, which no other thread uses.
            seconds: How long to wait for the threads of this process and for other processes, together.
            durable: Whether the commit waits for the disk.

        Raises:
            sqlite3.Error: The turn did not come in time, or SQLite reports another failure.
        """
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            raise sqlite3.OperationalError(LOCKED)
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._begin(connection, deadline)
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
        finally:
            self._lock.release()

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Begin a transaction as soon as no other process writes."""
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while not _try_to_begin(connection):
                if time.monotonic() >= deadline:
                    raise sqlite3.OperationalError(LOCKED)
                time.sleep(_RETRY_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * self._timeout)}")


def _try_to_begin(connection: sqlite3.Connection) -> bool:
    """Begin a transaction; return False if another process writes."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True
