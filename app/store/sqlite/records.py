"""The records in SQLite."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.record import Change, OpenJob, TaskRecord
from app.models.record_state import RecordState
from app.store.clock import NEVER
from app.store.records import RecordStore
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.lease import is_newest_fence
from app.store.sqlite.rows import (
    OPEN_JOB_COLUMNS,
    add_notifications,
    insert_record,
    row_to_open_job,
    row_to_record,
    row_to_state,
    to_milliseconds,
    to_milliseconds_or_none,
)

_THIS_RESERVATION = "uuid = ? AND created_at = ? AND slurm_job_id IS NULL AND slurm_job_state IS NULL"

_USERNAMES = """
WITH RECURSIVE names (name) AS (
    SELECT min(slurm_username) FROM tasks
    UNION ALL
    SELECT (SELECT min(slurm_username) FROM tasks WHERE slurm_username > name)
    FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL
"""


class SqliteRecordStore(SqliteDatabase, RecordStore):
    """The rows of the table `tasks`, with those of the table `notifications`."""

    def add_record(self, record: TaskRecord) -> None:
        """Insert the record, after deleting one whose submission failed."""
        with self.writing() as connection:
            connection.execute(
                "DELETE FROM tasks WHERE uuid = ? AND slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NOT NULL",
                (record.uuid,),
            )
            taken = connection.execute(
                "SELECT slurm_job_id FROM tasks WHERE uuid = ? OR idempotency_key = ?",
                (record.uuid, record.idempotency_key),
            ).fetchone()
            if taken is not None:
                raise DuplicateUuid(record.uuid, taken[0])
            insert_record(connection, record)

    def release_reservation(self, record: TaskRecord) -> None:
        """Delete the row of a reservation."""
        with self.writing() as connection:
            connection.execute("DELETE FROM tasks WHERE " + _THIS_RESERVATION, _values_of_reservation(record))  # noqa: S608

    def fail_reservation(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        """Store the reason, and free the idempotency key."""
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE tasks SET submission_error = ?, updated_at = ?, idempotency_key = NULL WHERE "  # noqa: S608
                + _THIS_RESERVATION
                + " AND submission_error IS NULL",
                (reason, to_milliseconds(at), *_values_of_reservation(record)),
            )
            return changed.rowcount == 1

    def accept_job(
        self,
        record: TaskRecord,
        job_id: int,
        state: JobState,
        at: datetime,
        warnings: Sequence[str] = (),
        *,
        durable: bool = True,
    ) -> bool:
        """Store the job, unless the row has a job already."""
        with self.writing(durable=durable) as connection:
            changed = connection.execute(
                "UPDATE tasks SET slurm_job_id = ?, slurm_job_state = ?, is_open = ?, updated_at = ?,"  # noqa: S608
                " warnings = ?, submission_error = NULL WHERE " + _THIS_RESERVATION,
                (
                    job_id,
                    state,
                    not state.is_settled,
                    to_milliseconds(at),
                    json.dumps(list(warnings)),
                    *_values_of_reservation(record),
                ),
            )
            return changed.rowcount == 1

    def find_by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        """Find the record by idempotency key."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM tasks WHERE idempotency_key = ?", (key,)).fetchone()
            return row_to_record(connection, row) if row else None

    def find_by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        """Find the records; `within` is not needed, because in WAL mode a reader waits for no writer."""
        with self.reading() as connection:
            marks = ",".join("?" * len(uuids))
            rows = connection.execute(f"SELECT * FROM tasks WHERE uuid IN ({marks})", uuids)  # noqa: S608
            return {row["uuid"]: row_to_record(connection, row) for row in rows.fetchall()}

    def find_states(self, uuids: Sequence[str]) -> dict[str, RecordState]:
        """Read a few columns of the records."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT uuid, slurm_username, slurm_job_id, slurm_job_state,"
                " submission_error IS NULL AS has_no_error FROM tasks"
                " WHERE uuid IN (SELECT value FROM json_each(?))",
                (json.dumps(list(uuids)),),
            )
            return {row["uuid"]: row_to_state(row) for row in rows.fetchall()}

    def find_by_job_id(self, job_id: int) -> TaskRecord | None:
        """Find the newest record with that job id."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id = ? ORDER BY created_at DESC, rowid DESC LIMIT 1",
                (job_id,),
            ).fetchone()
            return row_to_record(connection, row) if row else None

    def list_usernames(self) -> list[str]:
        """Look up one name after the other in an index: SQLite's DISTINCT would read all of the index."""
        with self.reading() as connection:
            return [row[0] for row in connection.execute(_USERNAMES)]

    def list_open_jobs(self) -> list[OpenJob]:
        """Read a few columns of all open records."""
        with self.reading() as connection:
            return _read_open_jobs(connection, "is_open")

    def list_ended_jobs(self, since: datetime, limit: int) -> list[OpenJob]:
        """Read a few columns of the records that were closed last."""
        ended = "NOT is_open AND updated_at >= ? AND slurm_job_id IS NOT NULL AND slurm_job_state != ?"
        with self.reading() as connection:
            return _read_open_jobs(
                connection,
                f"{ended} ORDER BY updated_at DESC LIMIT ?",
                (to_milliseconds(since), JobState.UNKNOWN, limit),
                is_array="json_extract(job, '$.array_tasks') IS NOT NULL",
            )

    def count_open_tasks(self, caller: str) -> int:
        """Count the caller's open records and reservations."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM tasks WHERE is_open AND caller = ?)"
                " + (SELECT count(*) FROM tasks WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NULL AND caller = ?)",
                (caller, caller),
            ).fetchone()
            return int(row[0])

    def list_reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        """Find the records without a job, a state and an error."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NULL AND (created_at < ? OR created_at > ?)",
                (to_milliseconds(before), to_milliseconds(after)),
            )
            return [row_to_record(connection, row) for row in rows.fetchall()]

    def apply_changes(self, changes: Iterable[Change], fence: int) -> int:
        """Compare the fencing token, and write all changes, in one transaction."""
        with self.writing() as connection:
            if not is_newest_fence(connection, fence):
                return 0
            return sum(_apply_change(connection, change) for change in changes)


def _read_open_jobs(
    connection: sqlite3.Connection, condition: str, values: Sequence[object] = (), is_array: str = "FALSE"
) -> list[OpenJob]:
    """Return the jobs of the records that meet a condition in SQL; `is_array` is an expression in SQL."""
    rows = connection.execute(
        f"SELECT {OPEN_JOB_COLUMNS}, {is_array} AS is_array FROM tasks WHERE {condition}",  # noqa: S608
        values,
    )
    return [row_to_open_job(row) for row in rows]


def _values_of_reservation(record: TaskRecord) -> tuple[str, int]:
    """Return the values of the condition _THIS_RESERVATION."""
    return record.uuid, to_milliseconds(record.created_at)


def _apply_change(connection: sqlite3.Connection, change: Change) -> bool:
    """Apply a change and add its notifications; return False if the record has another state by now."""
    submit_time = change.job.submit_time if change.job else None
    changed = connection.execute(
        "UPDATE tasks SET slurm_job_state = ?, is_open = ?, updated_at = ?,"
        " submit_time = coalesce(?, submit_time), job = coalesce(?, job),"
        " submission_error = coalesce(?, submission_error), alarm_at = ?"
        " WHERE uuid = ? AND slurm_job_state IS ?"
        " AND (slurm_job_id IS NOT NULL OR (submission_error IS NULL AND created_at IS ?))",
        (
            change.after,
            not change.after.is_settled,
            to_milliseconds(change.at),
            to_milliseconds_or_none(submit_time),
            change.job.model_dump_json() if change.job else None,
            change.submission_error,
            to_milliseconds_or_none(change.alarm_at),
            change.uuid,
            change.before,
            to_milliseconds_or_none(change.reserved_at),
        ),
    )
    if changed.rowcount != 1:
        return False
    add_notifications(connection, change.uuid, change.notifications)
    return True
