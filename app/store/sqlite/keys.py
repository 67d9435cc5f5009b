"""The API keys in SQLite."""

import sqlite3
from datetime import datetime

from app.models.api_key import ApiKey
from app.store.keys import KeyStore
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import to_datetime_or_none, to_milliseconds, to_milliseconds_or_none

_TIME_COLUMNS = ("last_used_at", "revoked_at")


class SqliteKeyStore(SqliteDatabase, KeyStore):
    """The rows of the table `keys`."""

    def add_key(self, key: ApiKey) -> bool:
        """Compare the name with those of all valid keys, and insert the key, in one transaction."""
        with self.writing() as connection:
            if has_name_of_valid_key(connection, key, key.created_at):
                return False
            insert_key(connection, key)
            return True

    def find_key(self, id_: str, within: float | None = None) -> ApiKey | None:
        """Find the key by id."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
            return row_to_key(row) if row else None

    def list_keys(self) -> list[ApiKey]:
        """Read all keys."""
        with self.reading() as connection:
            return [
                row_to_key(row) for row in connection.execute("SELECT * FROM keys ORDER BY rowid").fetchall()
            ]

    def revoke_key(self, id_: str, at: datetime) -> bool:
        """Store the time of the revocation."""
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (to_milliseconds(at), id_),
            )
            return changed.rowcount == 1

    def record_key_use(self, id_: str, at: datetime) -> None:
        """Store the time without waiting for the disk; losing it in a crash does no harm."""
        with self.writing(durable=False) as connection:
            connection.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", (to_milliseconds(at), id_))


def insert_key(connection: sqlite3.Connection, key: ApiKey) -> None:
    """Insert a key."""
    connection.execute(
        "INSERT INTO keys (id, last_used_at, revoked_at, key) VALUES (?, ?, ?, ?)",
        (
            key.id,
            to_milliseconds_or_none(key.last_used_at),
            to_milliseconds_or_none(key.revoked_at),
            key.model_dump_json(exclude=set(_TIME_COLUMNS)),
        ),
    )


def has_name_of_valid_key(connection: sqlite3.Connection, key: ApiKey, at: datetime) -> bool:
    """Return whether another key has the name, and is valid at that time."""
    others = map(row_to_key, connection.execute("SELECT * FROM keys WHERE revoked_at IS NULL"))
    return any(other.name == key.name and other.id != key.id and other.is_valid(at) for other in others)


def row_to_key(row: sqlite3.Row) -> ApiKey:
    """Return the key in a row of the table `keys`."""
    key = ApiKey.model_validate_json(row["key"])
    return key.model_copy(update={name: to_datetime_or_none(row[name]) for name in _TIME_COLUMNS})
