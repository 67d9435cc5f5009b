"""The reports of processes, and the numbers that operators watch, in SQLite."""

import json
import sqlite3
from datetime import datetime, timedelta
from typing import Any

from app.models.record import Notification, NotificationStatus
from app.store.health import Backlog, DueMessages, HealthStore, ProcessReport
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import to_datetime, to_datetime_or_none, to_milliseconds

_KEPT = timedelta(days=1)


class SqliteHealthStore(SqliteDatabase, HealthStore):
    """The rows of the table `reports`, and queries that read indexes alone."""

    def write_report(self, report: ProcessReport, within: float) -> None:
        """Replace the row of that name; refuse if the disk has no space left."""
        self._file.require_space()
        with self.writing(within) as connection:
            connection.execute("DELETE FROM reports WHERE at < ?", (to_milliseconds(report.at - _KEPT),))
            connection.execute(
                "INSERT OR REPLACE INTO reports (name, host, at, figures) VALUES (?, ?, ?, ?)",
                (report.name, report.host, to_milliseconds(report.at), json.dumps(report.figures)),
            )

    def list_reports(self, host: str, since: datetime) -> list[ProcessReport]:
        """Read the rows of the host."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM reports WHERE host = ? AND at >= ? ORDER BY name",
                (host, to_milliseconds(since)),
            )
            return [
                ProcessReport(row["name"], row["host"], to_datetime(row["at"]), json.loads(row["figures"]))
                for row in rows.fetchall()
            ]

    def delete_report(self, name: str) -> None:
        """Delete the row."""
        with self.writing() as connection:
            connection.execute("DELETE FROM reports WHERE name = ?", (name,))

    def measure_backlog(self, now: datetime) -> Backlog:
        """Read the partial indexes of reservations and of due notifications, and count the dead letters."""
        with self.reading() as connection:
            reserved = connection.execute(
                "SELECT count(*), min(created_at) FROM tasks"
                " WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL AND submission_error IS NULL"
            ).fetchone()
            due = connection.execute(
                "SELECT method, count(*), min(attempt_after) FROM notifications WHERE attempt_after <= ?"
                " GROUP BY method",
                (to_milliseconds(now),),
            )
            dead, newest = _read_dead_letters(connection)
            return Backlog(
                reservations=reserved[0],
                oldest_reservation_at=to_datetime_or_none(reserved[1]),
                due={method: DueMessages(count, to_datetime(oldest)) for method, count, oldest in due},
                dead=dead,
                newest_dead_at=newest,
            )

    def count_tasks(self) -> dict[str, int]:
        """Count the entries of the index by state."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT coalesce(slurm_job_state, 'none'), count(*) FROM tasks GROUP BY slurm_job_state"
            )
            return dict(map(tuple, rows.fetchall()))

    def count_notifications(self) -> dict[tuple[str, str], int]:
        """Count the rows of each status but `sent`."""
        unsent = [status for status in NotificationStatus if status is not NotificationStatus.SENT]
        marks = ",".join("?" * len(unsent))
        with self.reading() as connection:
            rows: Any = connection.execute(
                f"SELECT method, status, count(*) FROM notifications WHERE status IN ({marks})"  # noqa: S608
                " GROUP BY method, status",
                unsent,
            )
            return {(method, status): count for method, status, count in rows.fetchall()}


def _read_dead_letters(connection: sqlite3.Connection) -> tuple[int, datetime | None]:
    """Return the number of dead letters, and when the notification of the newest one was created."""
    dead = (NotificationStatus.DEAD,)
    count: int = connection.execute("SELECT count(*) FROM notifications WHERE status = ?", dead).fetchone()[0]
    if not count:
        return 0, None
    (message,) = connection.execute(
        "SELECT message FROM notifications WHERE status = ? ORDER BY rowid DESC LIMIT 1", dead
    ).fetchone()
    return count, Notification.model_validate({**json.loads(message), "status": dead[0]}).created_at
