"""Stores with records of every kind, and their exports."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.job_state import JobState
from app.lifecycle.back_up import StoreBackup
from app.lifecycle.import_records import ImportReport, StoreImport
from app.models.api_key import ApiKey
from app.models.caller import ORDINARY_SCOPES, Grant
from app.models.job import SlurmJob
from app.models.record import NotificationStatus, RecordKind, TaskRecord
from app.store import TaskStore
from tests.support.stores import LATER, NOW, claim, make_notification, make_record, make_running
from tests.support.tasks import make_task

LEASE = timedelta(seconds=30)


def silent(_: int, __: int) -> None:
    """Show no progress."""


def make_records() -> list[TaskRecord]:
    """Return records of every kind, with every field set in one of them."""
    odd = make_task(
        metadata={
            "$ref": "a",
            "$id": 1,
            "one": 1,
            "float": 1.0,
            "true": True,
            "none": None,
            "line": "a\u2028b",
        }
    )
    job = SlurmJob(
        job_id=9,
        username="alice",
        job_state=JobState.FAILED,
        exit_code=3,
        submit_time=NOW.replace(microsecond=0),
        array_tasks={JobState.COMPLETED: 2, JobState.FAILED: 1},
        failed_tasks="2",
        suspended_seconds=1.5,
    )
    messages = [
        make_notification(status=status, attempt_after=None, sent_at=NOW, last_error="x", attempts=2)
        for status in (NotificationStatus.SENT, NotificationStatus.DEAD, NotificationStatus.UNDELIVERABLE)
    ]
    gathered = make_notification(status=NotificationStatus.GATHERED, recipient="email:a@b", digest="d-1")
    return [
        make_record(),
        make_record(submission_error="refused"),
        make_record(slurm_job_state=JobState.UNKNOWN, submission_error="it is unknown"),
        make_running(
            task=odd,
            idempotency_key="alice one",
            warnings=("a warning",),
            alarm_at=LATER,
            caller="alice",
            resubmitted_from="another",
        ),
        make_running(kind=RecordKind.REGISTERED, slurm_job_state=JobState.FAILED, job=job, slurm_job_id=9),
        make_running(notifications=(*messages, gathered)),
    ]


def make_key(name: str = "pipeline", **fields: Any) -> ApiKey:
    base = {
        "id": f"id-of-{name}",
        "name": name,
        "hash": "0" * 64,
        "grant": Grant(scopes=ORDINARY_SCOPES, users=("alice",)),
        "created_at": NOW,
    }
    return ApiKey.model_validate({**base, **fields})


def fill(store: TaskStore) -> list[TaskRecord]:
    """Add records and keys of every kind, one of them with a claimed notification; return the records."""
    records = make_records()
    for record in records:
        store.add_record(record)
    claimed = make_running(notifications=(make_notification("slack"),))
    store.add_record(claimed)
    assert claim(store, method="slack") is not None
    assert store.add_key(make_key("old"))
    assert store.revoke_key("id-of-old", LATER)
    assert store.add_key(make_key("old", id="new", expires_at=LATER))
    assert store.add_key(make_key())
    return [*records, claimed]


def export(store: TaskStore, path: Path, **options: Any) -> list[dict[str, Any]]:
    """Export a store; return the lines without the first and the last one, in an order of their own."""
    chosen = {"overwrite": True, "with_keys": True, "snapshot": True, **options}
    StoreBackup(store, None).export(path, silent, **chosen)
    return content_of(path)


def content_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(lines[1:-1], key=lambda line: json.dumps(line))


def import_file(store: TaskStore, path: Path, *, force: bool = False) -> tuple[ImportReport, list[str]]:
    """Import a file; return the report and the conflicts."""
    conflicts: list[str] = []
    report = StoreImport(store, LEASE).import_file(path, silent, conflicts.append, force=force)
    return report, conflicts
