"""Resubmitted tasks in SQLite."""

from app.store.lineage import Descendant, LineageStore
from app.store.sqlite.database import SqliteDatabase


class SqliteLineageStore(SqliteDatabase, LineageStore):
    """The column `resubmitted_from` of the table `tasks`."""

    def list_resubmissions(self, uuid: str, limit: int) -> list[Descendant]:
        """Find the rows by the index of that column."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT uuid, slurm_username FROM tasks WHERE resubmitted_from = ?"
                " ORDER BY created_at DESC, rowid DESC LIMIT ?",
                (uuid, limit),
            )
            return [Descendant(*row) for row in rows]
