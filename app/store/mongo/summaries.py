"""Summaries of tasks from a few fields of their documents."""

from collections import Counter
from typing import Any

from app.models.record import has_ended, has_succeeded
from app.models.task_summary import TaskSummary, keep_text
from app.store.mongo.older_server import is_of_older_server, translate_fields
from app.store.mongo.types import Document

_FACTS = ("reason", "exit_code", "signal", "submit_time", "start_time", "end_time")  # of the field `job`
SUMMARY_FIELDS = (
    "uuid",
    "slurm_username",
    "slurm_job_id",
    "slurm_job_state",
    "created_at",
    "updated_at",
    "resubmitted_from",
    "submission_error",
    "taken_over_at",
    "notifications.status",
    *(f"task.{name}" for name in ("uuid", "username", "name", "slurm.job_name", "slurm.partition")),
    *(f"job.{name}" for name in ("name", "partition", *_FACTS)),
)


def document_to_summary(document: Document) -> TaskSummary:
    """Return the summary of a document with `SUMMARY_FIELDS`, whichever version or server wrote it.

    Raises:
        ValueError: The document cannot be read.
    """
    if is_of_older_server(document):
        document = {**document, **translate_fields(document)}
    task, job = document["task"], document.get("job") or {}
    options = task.get("slurm")
    asked = options if isinstance(options, dict) else {}
    state, error = document.get("slurm_job_state"), document.get("submission_error")
    counts = Counter(item["status"] for item in document.get("notifications", ()))
    values: dict[str, Any] = {
        "uuid": str(task.get("uuid") or document.get("uuid") or ""),
        "slurm_username": document["slurm_username"],
        "slurm_job_id": document.get("slurm_job_id"),
        "slurm_job_state": state,
        "created_at": document["created_at"],
        "updated_at": document["updated_at"],
        "resubmitted_from": document.get("resubmitted_from"),
        "submission_error": error,
        "name": keep_text(task.get("name")),
        "job_name": job.get("name") or keep_text(asked.get("job_name")),
        "partition": job.get("partition") or keep_text(asked.get("partition")),
        "notifications": dict(sorted(counts.items())),
        "ended": False,
        "succeeded": None,
        **{name: job.get(name) for name in _FACTS},
    }
    summary = TaskSummary.model_validate(values)
    is_reserved = summary.slurm_job_state is None and summary.slurm_job_id is None and error is None
    outcome = {
        "ended": has_ended(summary.slurm_job_state, is_reserved=is_reserved),
        "succeeded": has_succeeded(summary.slurm_job_state, is_reserved=is_reserved),
    }
    return summary.model_copy(update=outcome)
