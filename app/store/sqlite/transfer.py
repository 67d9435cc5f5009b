"""Copies of the SQLite file, and of its content."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from app.errors import CopyFailed
from app.models.api_key import ApiKey
from app.models.record import TaskRecord
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.keys import has_name_of_valid_key, insert_key, row_to_key
from app.store.sqlite.rows import insert_record, row_to_record
from app.store.transfer import (
    ADDED,
    PRESENT,
    Entry,
    ImportResult,
    Progress,
    StoreContent,
    StoreTransfer,
    explain_key_conflict,
    explain_record_conflict,
    explain_reused_key,
    is_same_key,
    is_same_record,
    release_claims,
)

_PAGES = 2000  # 8 MB: between two reports of the progress
_ANY_MESSAGE = "SELECT 1 FROM notifications WHERE id IN (SELECT value FROM json_each(?)) LIMIT 1"
_FAULT_COUNT = 1  # that the check of a copy reports; one is enough to discard it


class SqliteTransfer(SqliteDatabase, StoreTransfer):
    """The file as a whole, and its rows."""

    def copy_database(self, target: Path, progress: Progress) -> bool:
        """Copy the pages of the file in one read transaction, and check the copy.

        SQLite's backup begins again if another process writes. The transaction prevents this: in WAL mode it
        shows the pages of one moment, and delays no writer.
        """
        with self.reading() as connection, _read_transaction(connection):
            try:
                with closing(sqlite3.connect(target, isolation_level=None)) as copy:
                    copy.execute("PRAGMA journal_mode = OFF")  # a copy that fails is discarded
                    copy.execute("PRAGMA synchronous = OFF")  # the caller waits for the disk, once
                    connection.backup(
                        copy, pages=_PAGES, progress=lambda _, left, of: progress(of - left, of), sleep=0
                    )
            except sqlite3.Error as error:
                raise CopyFailed(f"the copy cannot be made: {error}") from error
        _check_copy(target)
        return True

    @contextmanager
    def reading_all(self, *, snapshot: bool = True) -> Iterator[StoreContent]:
        """Read all rows in one transaction, which is a snapshot in any case."""
        with self.reading() as connection, _read_transaction(connection):
            count = connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
            keys = connection.execute("SELECT * FROM keys ORDER BY rowid").fetchall()
            entries = _rows_to_entries(connection)
            yield StoreContent("SQLite", True, count, list(map(row_to_key, keys)), entries)

    def import_keys(self, keys: Iterable[ApiKey]) -> list[ImportResult]:
        """Insert the missing keys in one transaction."""
        with self.writing() as connection:
            return [self._import_key(connection, key) for key in keys]

    def _import_key(self, connection: sqlite3.Connection, key: ApiKey) -> ImportResult:
        row = connection.execute("SELECT * FROM keys WHERE id = ?", (key.id,)).fetchone()
        if row is not None:
            is_same = is_same_key(row_to_key(row), key)
            return PRESENT if is_same else explain_key_conflict(key, has_same_id=True)
        now = self.now()
        if key.is_valid(now) and has_name_of_valid_key(connection, key, now):
            return explain_key_conflict(key, has_same_id=False)
        insert_key(connection, key)
        return ADDED

    def import_entries(self, entries: Sequence[Entry]) -> list[ImportResult]:
        """Insert the missing records in one transaction."""
        with self.writing() as connection:
            return [_import_entry(connection, entry) for entry in entries]


@contextmanager
def _read_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Read one state of the file inside the block."""
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check_copy(path: Path) -> None:
    """Check all pages of a copy.

    Raises:
        CopyFailed: A page is damaged.
    """
    try:  # an immutable file needs no other files beside it
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
            (found,) = copy.execute(f"PRAGMA integrity_check({_FAULT_COUNT})").fetchone()
    except sqlite3.Error as error:
        raise CopyFailed(f"the copy cannot be read: {error}") from error
    if found != "ok":
        raise CopyFailed(f"the database is damaged: {found}")


def _rows_to_entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    for row in connection.execute("SELECT * FROM tasks ORDER BY rowid"):
        try:
            record = row_to_record(connection, row)
        except (LookupError, TypeError, ValueError) as error:
            raise CopyFailed(f"the record of the task {row['uuid']} cannot be read: {error}") from error
        yield Entry(release_claims(record))


def _import_entry(connection: sqlite3.Connection, entry: Entry) -> ImportResult:
    if entry.record is None:
        return ImportResult(conflict="this record of the older server cannot be read")
    record = entry.record
    if entry.bson is None:
        return _import_record(connection, record)
    # Of several records of the older server with one uuid, the newest is read first, and gets the uuid.
    plain = record.model_copy(update={"key": None})
    result = _import_record(connection, plain) if record.task.get("uuid") else None
    if result is None or result.conflict:
        result = _import_record(connection, record)
    return result


def _import_record(connection: sqlite3.Connection, record: TaskRecord) -> ImportResult:
    uuid = record.key or record.uuid
    row = connection.execute("SELECT * FROM tasks WHERE uuid = ?", (uuid,)).fetchone()
    if row is not None:
        is_same = is_same_record(row_to_record(connection, row), record)
        return PRESENT if is_same else explain_record_conflict(uuid)
    if record.idempotency_key is not None:
        owner = connection.execute(
            "SELECT uuid FROM tasks WHERE idempotency_key = ?", (record.idempotency_key,)
        ).fetchone()
        if owner is not None:
            return explain_reused_key(uuid, owner[0])
    ids = json.dumps([item.id for item in record.notifications])
    if connection.execute(_ANY_MESSAGE, (ids,)).fetchone() is not None:
        return ImportResult(conflict=f"a message of the task {uuid} is in the store with another task")
    insert_record(connection, record)
    return ADDED
