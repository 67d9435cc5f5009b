"""Decides who is told what when a job ends. Pure: no clock, no database, no network."""

import copy
import hashlib
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.output_files import output_path
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.models.task import CatalogueEntry, NotificationRequest, Task, WatchedTask

Catalogue = Mapping[str, CatalogueEntry]

_OUTCOMES = {
    JobState.CANCELLED: "was cancelled",
    JobState.OUT_OF_MEMORY: "ran out of memory",
    JobState.TIMEOUT: "reached its time limit",
    JobState.DEADLINE: "could not end before its deadline",
    JobState.NODE_FAIL: "lost its node",
    JobState.PREEMPTED: "was preempted",
    JobState.UNKNOWN: "is no longer known to Slurm, and how it ended cannot be told",
}


def merged_params(
    catalogue: Catalogue, name: object, wanted: NotificationRequest
) -> dict[str, dict[str, Any]]:
    """The channels of a task called `name`, the catalogue's first, each with its parameters.

    The task's own parameters win over the catalogue's, key by key; nothing is shared with the catalogue.
    """
    entry = catalogue.get(name) if isinstance(name, str) else None
    requests = [entry.notification, wanted] if entry else [wanted]
    merged: dict[str, dict[str, Any]] = {}
    for request in requests:
        for method in request.methods:
            merged.setdefault(method, {})
    for own in (request.params for request in requests):
        for method, params in own.items():
            if method in merged:
                merged[method].update(copy.deepcopy(params))
    return merged


def undeliverable(
    catalogue: Catalogue, task: Task | WatchedTask, configured: Collection[str], at: datetime
) -> list[Notification]:
    """A notification for each method that this server cannot use, so that the record says so at once."""
    return [
        blank.model_copy(
            update={
                "status": NotificationStatus.UNDELIVERABLE,
                "last_error": f"this server is not configured for {blank.method}",
            }
        )
        for blank in _blanks(catalogue, task, at)
        if blank.method not in configured
    ]


def end_notifications(
    catalogue: Catalogue, record: TaskRecord, job: SlurmJob, at: datetime
) -> tuple[Notification, ...]:
    """What is due now that the job has ended; a method that the record already has is left out."""
    task = task_of(record)
    known = {notification.id for notification in record.notifications}
    subject_default = f"{_title(task)} (job {job.job_id}): {job.job_state}"
    due = []
    for blank in _blanks(catalogue, task, at):
        if blank.id not in known:
            subject = _subject(blank.params, subject_default, job)
            words = {"subject": subject, "text": _text(blank.params, task, job), "attempt_after": at}
            due.append(blank.model_copy(update=words))
    return tuple(due)


def task_of(record: TaskRecord) -> Task | WatchedTask:
    """The task as it was checked when it came in: whole, or the little that a watched job needs."""
    model = Task if {"cwd", "dirs", "slurm"} <= record.task.keys() else WatchedTask
    try:
        return model.model_validate(record.task)
    except ValueError:  # a watched job's task may hold anything beside username and uuid
        return WatchedTask.model_validate(record.task)


def _blanks(catalogue: Catalogue, task: Task | WatchedTask, at: datetime) -> Iterator[Notification]:
    """One notification for each method, and for each recipient of it: one may fail where another does not."""
    for method, params in merged_params(catalogue, task.name, task.notification).items():
        recipients = params.get("recipient")
        for recipient in dict.fromkeys(recipients) if isinstance(recipients, list) else [recipients]:
            own = {**params, "recipient": recipient} if recipient else params
            key = hashlib.sha256(f"{task.uuid} end {method} {recipient or ''}".encode()).hexdigest()
            yield Notification(
                id=key[:32],
                event="end",
                method=method,
                params=own,
                status=NotificationStatus.DUE,
                created_at=at,
            )


def _title(task: Task | WatchedTask) -> str:
    name = task.slurm.job_name if isinstance(task, Task) else None
    return name or task.name or task.uuid


def _subject(params: Mapping[str, Any], default: str, job: SlurmJob) -> str:
    """The caller's own words; before bad news stands the state, whatever the words promise."""
    subject = str(params.get("subject") or default)
    return subject if job.job_state.is_success else f"[{job.job_state}] {subject}"


def _text(params: Mapping[str, Any], task: Task | WatchedTask, job: SlurmJob) -> str:
    own = str(params.get("body") or params.get("msg") or "")
    parts = [own] if own else []
    if not job.job_state.is_success:
        parts = [_bad_news(job)]
        parts += ["What the sender wrote before the job ran:\n\n" + own] if own else []
    facts = [f"{name:<10} {value}" for name, value in _facts(task, job) if value is not None]
    return "\n\n".join([*parts, "\n".join(facts)]) + "\n"


def _bad_news(job: SlurmJob) -> str:
    return f"The job did not succeed: it {_OUTCOMES.get(job.job_state, f'ended as {job.job_state}')}."


def _facts(task: Task | WatchedTask, job: SlurmJob) -> list[tuple[str, str | None]]:
    run_time = job.run_seconds()
    return [
        ("Task", task.uuid),
        ("Job", str(job.job_id) if job.job_id else None),
        ("Name", _title(task)),
        ("User", task.username),
        ("State", str(job.job_state)),
        ("Reason", None if job.job_state.is_success else job.reason),
        ("Exit code", None if job.exit_code is None else str(job.exit_code)),
        ("Signal", None if job.signal is None else str(job.signal)),
        ("Run time", None if run_time is None else str(timedelta(seconds=int(run_time)))),
        ("Output", output_path(task, job) if isinstance(task, Task) else job.standard_output),
    ]
