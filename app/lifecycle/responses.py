"""Build the answers about records, notifications and jobs: the models of app/models/answers.py."""

from datetime import datetime
from typing import Any

from app.messages.efficiency import find_hint
from app.messages.events import RequestedEvents
from app.messages.rendering import render_text
from app.models.answers import KeptNotification, PlannedMessage, Record, ShownNotification, SlurmFacts
from app.models.job import SlurmJob
from app.models.output_files import find_output_files
from app.models.record import Notification, TaskRecord
from app.senders import find_channel
from app.store.notification_queue import StoredNotification


def describe_job(record: TaskRecord, job: SlurmJob | None, as_of: datetime | None) -> SlurmFacts:
    """Return the facts of the record's job.

    Args:
        record: The record.
        job: What Slurm reported about the job, if it did.
        as_of: When Slurm reported it, if that is known.
    """
    facts: dict[str, Any] = {} if as_of is None else {"as_of": as_of}
    if job is None:
        return SlurmFacts(
            username=record.slurm_username,
            job_id=record.slurm_job_id,
            job_state=record.slurm_job_state,
            **facts,
        )
    files = find_output_files(record, job)
    if not job.job_state.is_success and (words := find_hint(job)):
        facts["hint"] = words
    facts |= {"standard_output": files.output, "standard_error": files.error}
    return SlurmFacts.model_validate({**job.model_dump(), **facts, "run_seconds": job.elapsed_seconds()})


def describe_record(record: TaskRecord) -> Record:
    """Return the answer about a record."""
    notifications = [describe_notification(item) for item in record.notifications]
    outcome = {"ended": record.has_ended, "succeeded": record.has_succeeded}
    return Record.model_validate({**dict(record), **outcome, "notifications": notifications})


def describe_notification(item: Notification) -> ShownNotification:
    """Return the answer about a notification."""
    return ShownNotification.model_validate(_notification_fields(item))


def describe_planned_message(item: Notification, events: RequestedEvents) -> PlannedMessage:
    """Return the answer about the messages to one receiver; `events`: those that they announce."""
    address = find_channel(item.method).address(item.params)
    return PlannedMessage(method=item.method, to=address, events=list(events), error=item.last_error)


def describe_stored_notification(found: StoredNotification) -> KeptNotification:
    """Return the answer about a notification, with the uuid of its task."""
    return KeptNotification.model_validate(
        {**_notification_fields(found.notification), "task_uuid": found.uuid}
    )


def _notification_fields(item: Notification) -> dict[str, Any]:
    content = item.content
    return {
        **dict(item),
        "to": find_channel(item.method).address(item.params),
        "subject": content.subject if content else "",
        "text": render_text(content) if content else "",
    }
