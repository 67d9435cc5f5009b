"""The tasks, and the lease of the one who watches them."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, OpenJob, TaskRecord, kind_of_old_record
from app.store import CLOCK_TOLERANCE, NEVER, log_impossible
from app.store.sqlite.database import (
    SqliteDatabase,
    milliseconds,
    milliseconds_if_any,
    moment,
    moment_if_any,
)
from app.store.sqlite.outbox import add_notifications, read_notification

_THIS_RESERVATION = "uuid = ? AND created_at = ? AND slurm_job_id IS NULL AND slurm_job_state IS NULL"


class SqliteRecords(SqliteDatabase):
    def add(self, record: TaskRecord) -> None:
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
            _insert(connection, record)

    def release(self, record: TaskRecord) -> None:
        with self.writing() as connection:
            connection.execute("DELETE FROM tasks WHERE " + _THIS_RESERVATION, _this(record))  # noqa: S608

    def fail(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE tasks SET submission_error = ?, updated_at = ?, idempotency_key = NULL WHERE "  # noqa: S608
                + _THIS_RESERVATION
                + " AND submission_error IS NULL",
                (reason, milliseconds(at), *_this(record)),
            )
            return changed.rowcount == 1

    def accept(
        self, record: TaskRecord, job_id: int, state: JobState, at: datetime, warnings: Sequence[str] = ()
    ) -> bool:
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE tasks SET slurm_job_id = ?, slurm_job_state = ?, is_open = ?, updated_at = ?,"  # noqa: S608
                " warnings = ?, submission_error = NULL WHERE " + _THIS_RESERVATION,
                (
                    job_id,
                    state,
                    not state.is_settled,
                    milliseconds(at),
                    json.dumps(list(warnings)),
                    *_this(record),
                ),
            )
            return changed.rowcount == 1

    def by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM tasks WHERE idempotency_key = ?", (key,)).fetchone()
            return _record(connection, row) if row else None

    def by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        """Nothing is waited for: in WAL mode no writer is in a reader's way."""
        with self.reading() as connection:
            marks = ",".join("?" * len(uuids))
            rows = connection.execute(f"SELECT * FROM tasks WHERE uuid IN ({marks})", uuids)  # noqa: S608
            return {row["uuid"]: _record(connection, row) for row in rows.fetchall()}

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id = ? ORDER BY created_at DESC, rowid DESC LIMIT 1",
                (job_id,),
            ).fetchone()
            return _record(connection, row) if row else None

    def by_state(self, state: JobState, usernames: Collection[str] | None, limit: int) -> list[TaskRecord]:
        of_users = "" if usernames is None else " AND slurm_username IN (SELECT value FROM json_each(?))"
        values = [] if usernames is None else [json.dumps(list(usernames))]
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM tasks WHERE slurm_job_state = ?{of_users}"  # noqa: S608
                " ORDER BY created_at DESC, rowid DESC LIMIT ?",
                (state, *values, limit),
            )
            return [_record(connection, row) for row in rows.fetchall()]

    def usernames(self) -> list[str]:
        with self.reading() as connection:
            return [row[0] for row in connection.execute("SELECT DISTINCT slurm_username FROM tasks")]

    def open_jobs(self) -> list[OpenJob]:
        with self.reading() as connection:
            return _open_jobs(connection, "is_open")

    def ended_since(self, at: datetime, limit: int) -> list[OpenJob]:
        ended = "NOT is_open AND updated_at >= ? AND slurm_job_id IS NOT NULL AND slurm_job_state != ?"
        with self.reading() as connection:
            return _open_jobs(
                connection,
                f"{ended} ORDER BY updated_at DESC LIMIT ?",
                (milliseconds(at), JobState.UNKNOWN, limit),
                is_array="json_extract(job, '$.array_tasks') IS NOT NULL",
            )

    def count_open(self, caller: str) -> int:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM tasks WHERE is_open AND caller = ?)"
                " + (SELECT count(*) FROM tasks WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NULL AND caller = ?)",
                (caller, caller),
            ).fetchone()
            return int(row[0])

    def reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NULL AND (created_at < ? OR created_at > ?)",
                (milliseconds(before), milliseconds(after)),
            )
            return [_record(connection, row) for row in rows.fetchall()]

    def apply(self, changes: Iterable[Change], fence: int) -> int:
        with self.writing() as connection:
            newest = connection.execute("SELECT fence FROM leases WHERE name = 'monitor'").fetchone()
            if newest is None or newest[0] != fence:
                return 0
            return sum(_apply(connection, change) for change in changes)

    def lead(self, owner: str, now: datetime, until: datetime) -> int | None:
        latest = milliseconds(until + CLOCK_TOLERANCE)
        with self.writing() as connection:
            held = connection.execute("SELECT owner, until FROM leases WHERE name = 'monitor'").fetchone()
            if held is not None and held["owner"] != owner and held["until"] > latest:
                log_impossible(f"the monitor's lease until {moment(held['until'])}")
            row = connection.execute(
                "INSERT INTO leases (name, owner, until, fence) VALUES ('monitor', ?, ?, 1)"
                " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until,"
                " fence = fence + (owner != excluded.owner)"
                " WHERE owner = excluded.owner OR until < ? OR until > ? RETURNING fence",
                (owner, milliseconds(until), milliseconds(now), latest),
            ).fetchone()
            return row[0] if row else None

    def resign(self, owner: str) -> None:
        with self.writing() as connection:
            connection.execute("UPDATE leases SET owner = '', until = 0 WHERE owner = ?", (owner,))


def _open_jobs(
    connection: sqlite3.Connection, which: str, values: Sequence[object] = (), is_array: str = "FALSE"
) -> list[OpenJob]:
    rows = connection.execute(
        "SELECT uuid, slurm_job_id, slurm_job_state, slurm_username, created_at, submit_time, alarm_at,"  # noqa: S608
        f" {is_array} AS is_array FROM tasks WHERE {which}",
        values,
    )
    return [
        OpenJob(
            row["uuid"],
            row["slurm_job_id"],
            JobState(row["slurm_job_state"]),
            row["slurm_username"],
            moment(row["created_at"]),
            moment_if_any(row["submit_time"]),
            moment_if_any(row["alarm_at"]),
            bool(row["is_array"]),
        )
        for row in rows
    ]


def _this(record: TaskRecord) -> tuple[str, int]:
    return record.uuid, milliseconds(record.created_at)


def _insert(connection: sqlite3.Connection, record: TaskRecord) -> None:
    submit_time = record.job.submit_time if record.job else None
    connection.execute(
        "INSERT INTO tasks (uuid, slurm_username, slurm_job_id, slurm_job_state, is_open, created_at,"
        " updated_at, submit_time, task, job, idempotency_key, warnings, submission_error, alarm_at, caller,"
        " kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.uuid,
            record.slurm_username,
            record.slurm_job_id,
            record.slurm_job_state,
            record.is_open,
            milliseconds(record.created_at),
            milliseconds(record.updated_at),
            milliseconds_if_any(submit_time),
            json.dumps(record.task),
            record.job.model_dump_json() if record.job else None,
            record.idempotency_key,
            json.dumps(list(record.warnings)),
            record.submission_error,
            milliseconds_if_any(record.alarm_at),
            record.caller,
            record.kind,
        ),
    )
    add_notifications(connection, record.uuid, record.notifications)


def _apply(connection: sqlite3.Connection, change: Change) -> bool:
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
            milliseconds(change.at),
            milliseconds_if_any(submit_time),
            change.job.model_dump_json() if change.job else None,
            change.submission_error,
            milliseconds_if_any(change.alarm_at),
            change.uuid,
            change.before,
            milliseconds_if_any(change.reserved_at),
        ),
    )
    if changed.rowcount != 1:
        return False
    add_notifications(connection, change.uuid, change.notifications)
    return True


def _record(connection: sqlite3.Connection, row: sqlite3.Row) -> TaskRecord:
    rows = connection.execute("SELECT * FROM notifications WHERE uuid = ? ORDER BY position", (row["uuid"],))
    job = SlurmJob.model_validate_json(row["job"]) if row["job"] else None
    return TaskRecord(
        kind=row["kind"] or kind_of_old_record(row["uuid"], job),
        task=json.loads(row["task"]),
        slurm_username=row["slurm_username"],
        slurm_job_id=row["slurm_job_id"],
        slurm_job_state=row["slurm_job_state"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        job=job,
        notifications=tuple(map(read_notification, rows)),
        idempotency_key=row["idempotency_key"],
        warnings=tuple(json.loads(row["warnings"])),
        submission_error=row["submission_error"],
        alarm_at=moment_if_any(row["alarm_at"]),
        caller=row["caller"],
    )
