"""Summaries of tasks from the columns of their rows."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from app.job_state import JobState
from app.models.record import has_ended, has_succeeded
from app.models.task_summary import TaskSummary, keep_text
from app.store.sqlite.rows import to_datetime
from app.store.sqlite.schema import JOB_NAME, PARTITION, TASK_NAME

_FACTS = ("reason", "exit_code", "signal", "submit_time", "start_time", "end_time")  # of the column `job`
_PATHS = ", ".join(f"'$.{name}'" for name in _FACTS)
_SUMMARIES = (
    "SELECT rowid, uuid, slurm_username, slurm_job_id, slurm_job_state, created_at, updated_at,"  # noqa: S608
    f" resubmitted_from, submission_error, {TASK_NAME} AS name, {JOB_NAME} AS job_name,"
    f" {PARTITION} AS partition, json_extract(job, {_PATHS}) AS facts"
    " FROM tasks WHERE rowid IN (SELECT value FROM json_each(?))"
)
_COUNTS = (
    "SELECT uuid, status, count(*) AS number FROM notifications"
    " WHERE uuid IN (SELECT value FROM json_each(?)) GROUP BY uuid, status ORDER BY status"
)


def read_summaries(connection: sqlite3.Connection, rowids: Sequence[int]) -> tuple[TaskSummary, ...]:
    """Return the summaries of the records with these rowids, in their order."""
    rows = {row["rowid"]: row for row in connection.execute(_SUMMARIES, (json.dumps(rowids),))}
    uuids = [row["uuid"] for row in rows.values()]
    counts: dict[str, dict[str, int]] = {uuid: {} for uuid in uuids}
    for row in connection.execute(_COUNTS, (json.dumps(uuids),)):
        counts[row["uuid"]][row["status"]] = row["number"]
    return tuple(_row_to_summary(rows[rowid], counts[rows[rowid]["uuid"]]) for rowid in rowids)


def _row_to_summary(row: sqlite3.Row, notifications: dict[str, int]) -> TaskSummary:
    values: dict[str, Any] = dict(row)
    facts = dict(zip(_FACTS, json.loads(values.pop("facts") or "[]"), strict=False))
    state = None if row["slurm_job_state"] is None else JobState(row["slurm_job_state"])
    is_reserved = state is None and row["slurm_job_id"] is None and row["submission_error"] is None
    times = {name: to_datetime(row[name]) for name in ("created_at", "updated_at")}
    asked = {name: keep_text(row[name]) for name in ("name", "job_name", "partition")}
    outcome = {
        "ended": has_ended(state, is_reserved=is_reserved),
        "succeeded": has_succeeded(state, is_reserved=is_reserved),
    }
    nothing = dict.fromkeys(_FACTS)
    return TaskSummary.model_validate(
        {**values, **nothing, **facts, **times, **asked, **outcome, "notifications": notifications}
    )
