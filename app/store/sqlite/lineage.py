"""Resubmitted tasks in SQLite."""

import json
from collections.abc import Sequence

from app.store.lineage import Descendant, LineageStore
from app.store.sqlite.database import SqliteDatabase


class SqliteLineageStore(SqliteDatabase, LineageStore):
    """The column `resubmitted_from` of the table `tasks`."""

    def list_resubmissions(
        self, uuid: str, limit: int, usernames: Sequence[str] | None = None
    ) -> list[Descendant]:
        """Find the rows by the index of that column."""
        names = json.dumps(list(usernames)) if usernames is not None else None
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT uuid, slurm_username FROM tasks WHERE resubmitted_from = :uuid"
                " AND (:names IS NULL OR slurm_username IN (SELECT value FROM json_each(:names)))"
                " ORDER BY created_at DESC, rowid DESC LIMIT :limit",
                {"uuid": uuid, "names": names, "limit": limit},
            )
            return [Descendant(*row) for row in rows]
