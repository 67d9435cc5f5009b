"""Records and notifications as rows, and back."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Notification, OpenJob, TaskRecord, guess_kind
from app.models.record_state import RecordState

# The columns of a notification that change; all the rest of it is in `message`.
_MUTABLE_COLUMNS = (
    "status",
    "attempts",
    "attempt_after",
    "claim",
    "last_error",
    "sent_at",
    "revived_at",
    "recipient",
    "digest",
)
_STATES = dict(JobState.__members__)
OPEN_JOB_COLUMNS = (  # that `row_to_open_job` needs, in its order
    "uuid, slurm_job_id, slurm_job_state, slurm_username, created_at, submit_time, alarm_at, taken_over_at"
)
_TIME_COLUMNS = ("attempt_after", "sent_at", "revived_at")


def to_milliseconds(at: datetime) -> int:
    """Return a time in its stored form: milliseconds since 1970 in UTC."""
    return round(at.timestamp() * 1000)


def to_milliseconds_or_none(at: datetime | None) -> int | None:
    """Return a time in its stored form, or None."""
    return to_milliseconds(at) if at is not None else None


def to_datetime(milliseconds: int) -> datetime:
    """Return a stored time as a datetime in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_datetime_or_none(milliseconds: int | None) -> datetime | None:
    """Return a stored time as a datetime in UTC, or None."""
    return to_datetime(milliseconds) if milliseconds is not None else None


def insert_record(connection: sqlite3.Connection, record: TaskRecord) -> None:
    """Insert a record and its notifications."""
    submit_time = record.job.submit_time if record.job else None
    connection.execute(
        "INSERT INTO tasks (uuid, slurm_username, slurm_job_id, slurm_job_state, is_open, created_at,"
        " updated_at, submit_time, task, job, idempotency_key, warnings, submission_error, alarm_at, caller,"
        " kind, resubmitted_from, taken_over_at, defaults)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.key or record.uuid,
            record.slurm_username,
            record.slurm_job_id,
            record.slurm_job_state,
            record.is_open,
            to_milliseconds(record.created_at),
            to_milliseconds(record.updated_at),
            to_milliseconds_or_none(submit_time),
            json.dumps(record.task),
            record.job.model_dump_json() if record.job else None,
            record.idempotency_key,
            json.dumps(list(record.warnings)),
            record.submission_error,
            to_milliseconds_or_none(record.alarm_at),
            record.caller,
            record.kind,
            record.resubmitted_from,
            to_milliseconds_or_none(record.taken_over_at),
            json.dumps(record.defaults) if record.defaults else None,
        ),
    )
    add_notifications(connection, record.key or record.uuid, record.notifications)


def row_to_record(connection: sqlite3.Connection, row: sqlite3.Row) -> TaskRecord:
    """Return the record in a row of the table `tasks`, with its notifications."""
    rows = connection.execute("SELECT * FROM notifications WHERE uuid = ? ORDER BY position", (row["uuid"],))
    job = SlurmJob.model_validate_json(row["job"]) if row["job"] else None
    task = json.loads(row["task"])
    return TaskRecord(
        kind=row["kind"] or guess_kind(row["uuid"], job),
        task=task,
        slurm_username=row["slurm_username"],
        slurm_job_id=row["slurm_job_id"],
        slurm_job_state=row["slurm_job_state"],
        created_at=to_datetime(row["created_at"]),
        updated_at=to_datetime(row["updated_at"]),
        job=job,
        notifications=tuple(map(row_to_notification, rows)),
        idempotency_key=row["idempotency_key"],
        warnings=tuple(json.loads(row["warnings"])),
        submission_error=row["submission_error"],
        alarm_at=to_datetime_or_none(row["alarm_at"]),
        caller=row["caller"],
        resubmitted_from=row["resubmitted_from"],
        key=row["uuid"] if row["uuid"] != str(task.get("uuid")) else None,
        taken_over_at=to_datetime_or_none(row["taken_over_at"]),
        defaults=json.loads(row["defaults"]) if row["defaults"] else {},
    )


def row_to_open_job(row: sqlite3.Row) -> OpenJob:
    """Return the job in a row with OPEN_JOB_COLUMNS and `is_array`: by position, which costs less."""
    uuid, job_id, state, username, created_at, submit_time, alarm_at, taken_over_at, is_array = row
    return OpenJob(
        uuid,
        job_id,
        _STATES[state],
        username,
        to_datetime(created_at),
        to_datetime_or_none(submit_time),
        to_datetime_or_none(alarm_at),
        bool(is_array),
        taken_over_at is not None,
    )


def row_to_state(row: sqlite3.Row) -> RecordState:
    """Return the state of a record in a row with the columns that a waiting request reads."""
    username, job_id, word = row["slurm_username"], row["slurm_job_id"], row["slurm_job_state"]
    if word is None:
        return RecordState(username, job_id, None, is_reserved=job_id is None and bool(row["has_no_error"]))
    state = JobState(word) if word in JobState.__members__ else JobState.UNKNOWN
    return RecordState(username, job_id, state, is_reserved=False)


def add_notifications(
    connection: sqlite3.Connection, uuid: str, notifications: Sequence[Notification]
) -> None:
    """Insert notifications after those that the record has, without those that are stored already."""
    first = connection.execute("SELECT count(*) FROM notifications WHERE uuid = ?", (uuid,)).fetchone()[0]
    columns = ("id", "uuid", "position", "method", *_MUTABLE_COLUMNS, "message")
    marks = ", ".join("?" * len(columns))
    connection.executemany(
        f"INSERT OR IGNORE INTO notifications ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
        [
            (
                item.id,
                uuid,
                position,
                item.method,
                *_mutable_values(item),
                item.model_dump_json(exclude=set(_MUTABLE_COLUMNS)),
            )
            for position, item in enumerate(notifications, start=first)
        ],
    )


def _mutable_values(item: Notification) -> Iterator[object]:
    for column in _MUTABLE_COLUMNS:
        value = getattr(item, column)
        yield to_milliseconds_or_none(value) if column in _TIME_COLUMNS else value


def row_to_notification(row: sqlite3.Row) -> Notification:
    """Return the notification in a row of the table `notifications`."""
    values = {column: row[column] for column in _MUTABLE_COLUMNS}
    for column in _TIME_COLUMNS:
        values[column] = to_datetime_or_none(values[column])
    return Notification.model_validate({**json.loads(row["message"]), **values})
