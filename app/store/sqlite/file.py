"""The file of the SQLite store: created at a start, and never by a server that runs."""

import os
import sqlite3
from pathlib import Path

from app.errors import StoreRefused, StoreUnavailable
from app.unwritable_file import explain_unwritable

_SUFFIXES = ("-wal", "-shm")  # of the files that SQLite keeps beside the database
_UNUSABLE_FILE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

_MIN_SPACE = 256 * 1024  # bytes; a disk with less is full

_Identity = tuple[int, int]  # device and inode

# The file at each path at the start; gunicorn's workers inherit this from the main process. Therefore a
# worker that replaces another one, after a crash or a reload, refuses a file that was replaced meanwhile.
_identity_at_start: dict[Path, _Identity | None] = {}


class DatabaseFile:
    """The path of a database, and the files that were opened there.

    The files may be removed or replaced while a server has them open. What SQLite writes then is lost when
    the server ends, and SQLite does not report this.
    """

    def __init__(self, path: Path) -> None:
        """Prepare to use the file at `path`, which is not opened yet."""
        self._path = path
        self._paths = [str(path), *(f"{path}{suffix}" for suffix in _SUFFIXES)]
        self._opened: list[_Identity | None] | None = None

    def create(self) -> None:
        """Create the file with mode 0600 if there is none; SQLite gives its other files the same mode.

        Raises:
            StoreRefused: The file is missing and cannot be created.
        """
        try:
            self._path.touch(mode=0o600)
        except OSError as error:
            if not self._path.exists():  # opening an existing file gives a better error
                raise StoreRefused(explain_unwritable(self._path)) from error
        _identity_at_start[self._path] = _file_identity(str(self._path))

    def connect(self, timeout: float) -> sqlite3.Connection:
        """Open a connection in WAL mode.

        Args:
            timeout: Seconds that a statement waits for another process's write.

        Raises:
            sqlite3.Error: The file is missing, or cannot be used.
        """
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # does not create the file
        connection = sqlite3.connect(uri, timeout, uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("SELECT count(*) FROM sqlite_schema")  # opens SQLite's other files, too
        except BaseException:
            connection.close()
            raise
        return connection

    def remember_identities(self) -> None:
        """Remember which files are at the path, because these files have just been opened."""
        self._opened = self._identities()

    def forget_identities(self) -> None:
        """Forget which files were opened, because all connections are closed."""
        self._opened = None

    def check_identities(self) -> None:
        """Compare the files at the path with those that were opened.

        Raises:
            StoreRefused: A file was removed or replaced.
        """
        found = self._identities()
        is_replaced = self._opened is not None and found != self._opened
        if is_replaced or found[0] != _identity_at_start.get(self._path, found[0]):
            raise StoreRefused(
                f"{self._path} was removed or replaced while the server was running: put the same file back,"
                " or restart the service to use what is there now"
            )

    def require_space(self) -> None:
        """Check that the file can grow: small changes may still fit into a file on a full disk.

        Raises:
            StoreUnavailable: The disk is full.
        """
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return  # opening the file gives a better error
        if (left := found.f_bavail * found.f_frsize) < _MIN_SPACE:
            raise StoreUnavailable(f"the disk of {self._path} is full: {left // 1024} kB are left")

    def explain_error(self, error: sqlite3.Error) -> str | None:
        """Return what is wrong with the file, and the remedy; None if the file is not the cause."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details of an extended code
        if code == sqlite3.SQLITE_NOTADB:
            return f"{self._path} is no SQLite database: name another file, or move this one away"
        if code not in _UNUSABLE_FILE:
            return None
        if self._path.parent.is_dir() and not self._path.exists():
            return f"there is no file {self._path}: put it back, or restart the service to create a new one"
        return explain_unwritable(self._path)

    def _identities(self) -> list[_Identity | None]:
        return [_file_identity(path) for path in self._paths]


def _file_identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - in every transaction; pathlib's takes twice the time
    except OSError:
        return None
    return found.st_dev, found.st_ino
