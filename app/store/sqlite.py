"""The embedded store: one SQLite file (WAL), for several threads and processes of one host."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.errors import DuplicateUuid, StoreUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, OpenJob, TaskRecord
from app.store import Claim, Outcome

_BUSY_MS = 5_000  # how long a statement waits for another process's write

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    uuid TEXT PRIMARY KEY,
    slurm_username TEXT NOT NULL,
    slurm_job_id INTEGER,
    slurm_job_state TEXT,
    is_open INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    submit_time INTEGER,
    task TEXT NOT NULL,
    job TEXT,
    idempotency_key TEXT UNIQUE,
    warnings TEXT NOT NULL,
    submission_error TEXT
);
CREATE INDEX IF NOT EXISTS tasks_job_id ON tasks (slurm_job_id, created_at);
CREATE INDEX IF NOT EXISTS tasks_open ON tasks (is_open) WHERE is_open;
CREATE INDEX IF NOT EXISTS tasks_reserved ON tasks (created_at)
    WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL AND submission_error IS NULL;
CREATE TABLE IF NOT EXISTS notifications (
    id TEXT PRIMARY KEY,
    uuid TEXT NOT NULL REFERENCES tasks (uuid) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    attempt_after INTEGER,
    claim TEXT,
    last_error TEXT,
    sent_at INTEGER,
    message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS notifications_due ON notifications (method, attempt_after)
    WHERE attempt_after IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_uuid ON notifications (uuid, position);
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL, fence INTEGER NOT NULL
);
"""

_THIS_RESERVATION = "uuid = ? AND created_at = ? AND slurm_job_id IS NULL AND slurm_job_state IS NULL"
# The columns that change while a notification lives; the rest of it stands in `message`.
_LIFE = ("status", "attempts", "attempt_after", "claim", "last_error", "sent_at")


class SqliteStore:
    """One connection for each thread; every write is one transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        with self._read() as connection:
            connection.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)

    def add(self, record: TaskRecord) -> None:
        with self._write() as connection:
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
        with self._write() as connection:
            connection.execute("DELETE FROM tasks WHERE " + _THIS_RESERVATION, _this(record))  # noqa: S608

    def fail(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE tasks SET submission_error = ?, updated_at = ?, idempotency_key = NULL WHERE "  # noqa: S608
                + _THIS_RESERVATION
                + " AND submission_error IS NULL",
                (reason, _ms(at), *_this(record)),
            )
            return changed.rowcount == 1

    def accept(
        self, record: TaskRecord, job_id: int, state: JobState, at: datetime, warnings: Sequence[str] = ()
    ) -> bool:
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE tasks SET slurm_job_id = ?, slurm_job_state = ?, is_open = ?, updated_at = ?,"  # noqa: S608
                " warnings = ?, submission_error = NULL WHERE " + _THIS_RESERVATION,
                (job_id, state, not state.is_settled, _ms(at), json.dumps(list(warnings)), *_this(record)),
            )
            return changed.rowcount == 1

    def by_idempotency_key(self, key: str) -> TaskRecord | None:
        with self._read() as connection:
            row = connection.execute("SELECT * FROM tasks WHERE idempotency_key = ?", (key,)).fetchone()
            return _record(connection, row) if row else None

    def by_uuids(self, uuids: Sequence[str]) -> dict[str, TaskRecord]:
        with self._read() as connection:
            marks = ",".join("?" * len(uuids))
            rows = connection.execute(f"SELECT * FROM tasks WHERE uuid IN ({marks})", uuids)  # noqa: S608
            return {row["uuid"]: _record(connection, row) for row in rows.fetchall()}

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        with self._read() as connection:
            row = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id = ? ORDER BY created_at DESC, rowid DESC LIMIT 1",
                (job_id,),
            ).fetchone()
            return _record(connection, row) if row else None

    def open_jobs(self) -> list[OpenJob]:
        with self._read() as connection:
            rows = connection.execute(
                "SELECT uuid, slurm_job_id, slurm_job_state, slurm_username, created_at, submit_time"
                " FROM tasks WHERE is_open"
            )
            return [
                OpenJob(
                    row["uuid"],
                    row["slurm_job_id"],
                    JobState(row["slurm_job_state"]),
                    row["slurm_username"],
                    _moment(row["created_at"]),
                    _moment(row["submit_time"]) if row["submit_time"] else None,
                )
                for row in rows
            ]

    def reservations(self, before: datetime) -> list[TaskRecord]:
        with self._read() as connection:
            rows = connection.execute(
                "SELECT * FROM tasks WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL"
                " AND submission_error IS NULL AND created_at < ?",
                (_ms(before),),
            )
            return [_record(connection, row) for row in rows.fetchall()]

    def apply(self, changes: Iterable[Change], fence: int) -> int:
        with self._write() as connection:
            newest = connection.execute("SELECT fence FROM leases WHERE name = 'monitor'").fetchone()
            if newest is None or newest[0] != fence:
                return 0
            return sum(_apply(connection, change) for change in changes)

    def claim(self, method: str, token: str, now: datetime, until: datetime) -> Claim | None:
        with self._write() as connection:
            row = connection.execute(
                "UPDATE notifications SET status = ?, claim = ?, attempt_after = ?, attempts = attempts + 1"
                " WHERE id = (SELECT id FROM notifications WHERE method = ? AND attempt_after <= ?"
                " ORDER BY attempt_after LIMIT 1) RETURNING *",
                (NotificationStatus.CLAIMED, token, _ms(until), method, _ms(now)),
            ).fetchone()
            return Claim(row["uuid"], _notification(row)) if row else None

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        sent_at = _ms(outcome.at) if outcome.status is NotificationStatus.SENT else None
        with self._write() as connection:
            changed = connection.execute(
                "UPDATE notifications SET status = ?, attempt_after = ?, last_error = ?, sent_at = ?,"
                " claim = NULL WHERE id = ? AND claim = ?",
                (
                    outcome.status,
                    _ms(outcome.attempt_after) if outcome.attempt_after else None,
                    outcome.error,
                    sent_at,
                    claim.notification.id,
                    claim.notification.claim,
                ),
            )
            return changed.rowcount == 1

    def lead(self, owner: str, now: datetime, until: datetime) -> int | None:
        with self._write() as connection:
            row = connection.execute(
                "INSERT INTO leases (name, owner, until, fence) VALUES ('monitor', ?, ?, 1)"
                " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until,"
                " fence = fence + (owner != excluded.owner)"
                " WHERE owner = excluded.owner OR until < ? RETURNING fence",
                (owner, _ms(until), _ms(now)),
            ).fetchone()
            return row[0] if row else None

    def resign(self, owner: str) -> None:
        with self._write() as connection:
            connection.execute("UPDATE leases SET owner = '', until = 0 WHERE owner = ?", (owner,))

    def ping(self) -> None:
        with self._read() as connection:
            connection.execute("SELECT 1")

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
            with self._lock:
                self._all.append(connection)
        return connection

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} does not answer: {error}") from error

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._read() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _this(record: TaskRecord) -> tuple[str, int]:
    return record.uuid, _ms(record.created_at)


def _insert(connection: sqlite3.Connection, record: TaskRecord) -> None:
    submit_time = record.job.submit_time if record.job else None
    connection.execute(
        "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.uuid,
            record.slurm_username,
            record.slurm_job_id,
            record.slurm_job_state,
            record.is_open,
            _ms(record.created_at),
            _ms(record.updated_at),
            _ms(submit_time) if submit_time else None,
            json.dumps(record.task),
            record.job.model_dump_json() if record.job else None,
            record.idempotency_key,
            json.dumps(list(record.warnings)),
            record.submission_error,
        ),
    )
    _add_notifications(connection, record.uuid, record.notifications)


def _add_notifications(
    connection: sqlite3.Connection, uuid: str, notifications: Sequence[Notification]
) -> None:
    first = connection.execute("SELECT count(*) FROM notifications WHERE uuid = ?", (uuid,)).fetchone()[0]
    connection.executemany(
        "INSERT INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                item.id,
                uuid,
                position,
                item.method,
                item.status,
                item.attempts,
                _ms(item.attempt_after) if item.attempt_after else None,
                item.claim,
                item.last_error,
                _ms(item.sent_at) if item.sent_at else None,
                item.model_dump_json(exclude=set(_LIFE)),
            )
            for position, item in enumerate(notifications, start=first)
        ],
    )


def _apply(connection: sqlite3.Connection, change: Change) -> bool:
    submit_time = change.job.submit_time if change.job else None
    changed = connection.execute(
        "UPDATE tasks SET slurm_job_state = ?, is_open = ?, updated_at = ?,"
        " submit_time = coalesce(?, submit_time), job = coalesce(?, job),"
        " submission_error = coalesce(?, submission_error)"
        " WHERE uuid = ? AND slurm_job_state IS ? AND (slurm_job_id IS NOT NULL OR submission_error IS NULL)",
        (
            change.after,
            not change.after.is_settled,
            _ms(change.at),
            _ms(submit_time) if submit_time else None,
            change.job.model_dump_json() if change.job else None,
            change.submission_error,
            change.uuid,
            change.before,
        ),
    )
    if changed.rowcount != 1:
        return False
    _add_notifications(connection, change.uuid, change.notifications)
    return True


def _record(connection: sqlite3.Connection, row: sqlite3.Row) -> TaskRecord:
    rows = connection.execute("SELECT * FROM notifications WHERE uuid = ? ORDER BY position", (row["uuid"],))
    return TaskRecord(
        task=json.loads(row["task"]),
        slurm_username=row["slurm_username"],
        slurm_job_id=row["slurm_job_id"],
        slurm_job_state=row["slurm_job_state"],
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
        job=SlurmJob.model_validate_json(row["job"]) if row["job"] else None,
        notifications=tuple(map(_notification, rows)),
        idempotency_key=row["idempotency_key"],
        warnings=tuple(json.loads(row["warnings"])),
        submission_error=row["submission_error"],
    )


def _notification(row: sqlite3.Row) -> Notification:
    life = {column: row[column] for column in _LIFE}
    for column in ("attempt_after", "sent_at"):
        life[column] = _moment(life[column]) if life[column] is not None else None
    return Notification.model_validate({**json.loads(row["message"]), **life})
