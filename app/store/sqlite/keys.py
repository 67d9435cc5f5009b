"""The API keys."""

import sqlite3
from datetime import datetime

from app.models.api_key import ApiKey
from app.store.sqlite.database import SqliteDatabase, milliseconds, milliseconds_if_any, moment_if_any

_MOMENTS = ("last_used_at", "revoked_at")


class SqliteKeys(SqliteDatabase):
    def add_key(self, key: ApiKey) -> bool:
        with self.writing() as connection:
            others = map(_key, connection.execute("SELECT * FROM keys WHERE revoked_at IS NULL"))
            if any(other.name == key.name and other.is_valid(key.created_at) for other in others):
                return False
            connection.execute(
                "INSERT INTO keys (id, last_used_at, revoked_at, key) VALUES (?, ?, ?, ?)",
                (
                    key.id,
                    milliseconds_if_any(key.last_used_at),
                    milliseconds_if_any(key.revoked_at),
                    key.model_dump_json(exclude=set(_MOMENTS)),
                ),
            )
            return True

    def key(self, id_: str, within: float | None = None) -> ApiKey | None:
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
            return _key(row) if row else None

    def all_keys(self) -> list[ApiKey]:
        with self.reading() as connection:
            return [_key(row) for row in connection.execute("SELECT * FROM keys ORDER BY rowid").fetchall()]

    def revoke_key(self, id_: str, at: datetime) -> bool:
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (milliseconds(at), id_)
            )
            return changed.rowcount == 1

    def key_used(self, id_: str, at: datetime) -> None:
        with self.writing() as connection:
            connection.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", (milliseconds(at), id_))


def _key(row: sqlite3.Row) -> ApiKey:
    key = ApiKey.model_validate_json(row["key"])
    return key.model_copy(update={name: moment_if_any(row[name]) for name in _MOMENTS})
