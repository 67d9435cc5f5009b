"""The submissions in an audit trail."""

import json
from datetime import UTC, datetime
from typing import Any

from app.access.audited_submissions import read_audited_submissions
from app.models.audited_submission import AuditedSubmission

SINCE = datetime(2026, 1, 2, tzinfo=UTC)
ENTRY = {
    "at": "2026-01-02T03:04:05+00:00",
    "request_id": "1",
    "caller": "key:pipeline:1",
    "address": "127.0.0.1",
    "action": "POST /submit",
    "username": "alice",
    "task_uuid": "one",
    "slurm_job_id": 7,
    "status": 200,
}


def line(**fields: Any) -> str:
    entry = {**ENTRY, **fields}
    return json.dumps({name: value for name, value in entry.items() if value is not None}) + "\n"


def test_only_submissions_that_became_jobs_are_read() -> None:
    lines = [
        line(),
        line(action="POST /monitor/task_uuid/<task_uuid>/resubmit", task_uuid="two", resubmitted_from="one"),
        line(at="2026-01-01T03:04:05+00:00"),
        line(action="POST /submit?dry_run=true"),
        line(action="POST /monitor"),
        line(action="GET /monitor/task_uuid/<task_uuid>"),
        line(status=400),
        line(slurm_job_id=None),
        line(username=None),
        line(task_uuid=None),
        line(at="2026-01-02T03:04:05"),
        "{}\n",
        "no JSON\n",
        line()[:40],
    ]
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert list(read_audited_submissions(lines, SINCE)) == [
        AuditedSubmission(at, "one", "alice", 7, "key:pipeline:1"),
        AuditedSubmission(at, "two", "alice", 7, "key:pipeline:1", "one"),
    ]
