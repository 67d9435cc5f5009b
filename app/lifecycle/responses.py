"""What callers see of a record and of its notifications."""

from datetime import datetime
from typing import Any

from app.messages.efficiency import hint
from app.messages.rendering import as_text
from app.models.job import SlurmJob
from app.models.output_files import output_files
from app.models.record import Notification, TaskRecord
from app.senders import find_channel
from app.store.notification_queue import StoredNotification

# Fields of a record that callers do not see, or that are added in a form of their own.
_HIDDEN_FIELDS = {
    "task",
    "job",
    "notifications",
    "idempotency_key",
    "alarm_at",
    "caller",
    "kind",
    "key",
    "taken_over_at",
}


def shown_job(record: TaskRecord, job: SlurmJob | None, as_of: datetime | None) -> dict[str, Any]:
    """Return the facts of the record's job; `as_of` is when Slurm reported them, if that is known."""
    facts: dict[str, Any] = {
        "username": record.slurm_username,
        "job_id": record.slurm_job_id,
        "job_state": record.slurm_job_state,
    }
    if job is not None:
        files = output_files(record, job)
        facts = job.model_dump(mode="json")
        facts |= {"standard_output": files.output, "standard_error": files.error}
        facts["run_seconds"] = job.run_seconds()
        if not job.job_state.is_success and (words := hint(job)):
            facts["hint"] = words
    return {**facts, "as_of": as_of.isoformat()} if as_of is not None else facts


def shown_record(record: TaskRecord) -> dict[str, Any]:
    """Return what callers see of a record, as answers.Record describes it."""
    body = record.model_dump(mode="json", exclude=_HIDDEN_FIELDS)
    for name in ("warnings", "submission_error"):
        if not body[name]:
            del body[name]
    notifications = [shown_notification(item) for item in record.notifications]
    return {**body, "task": record.task, "notifications": notifications}


def shown_notification(item: Notification) -> dict[str, Any]:
    """How far it has come, to whom it goes, and what it says."""
    body = item.model_dump(mode="json", exclude={"params", "claim", "content", "recipient"})
    for name in ("revived_at", "digest"):
        if body[name] is None:
            del body[name]
    content = item.content
    body["to"] = find_channel(item.method).address(item.params)
    return {
        **body,
        "subject": content.subject if content else "",
        "text": as_text(content) if content else "",
    }


def shown_claim(found: StoredNotification) -> dict[str, Any]:
    return {"task_uuid": found.uuid, **shown_notification(found.notification)}
