"""Records as documents, and back."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from app.job_state import JobState
from app.models.record import Notification, NotificationStatus, OpenJob, TaskRecord, guess_kind
from app.models.record_state import RecordState
from app.store.mongo.older_server import (
    is_of_older_server,
    parse_stored_job_id,
    parse_stored_state,
    translate_fields,
)
from app.store.mongo.types import Document

OPEN_JOB_FIELDS = (  # that `document_to_open_job` needs
    "uuid",
    "slurm_job_id",
    "slurm_job_state",
    "slurm_username",
    "created_at",
    "job.submit_time",
    "alarm_at",
    "taken_over_at",
)
STATE_FIELDS = (  # the fields that `document_to_state` needs
    "uuid",
    "slurm_username",
    "slurm_job_id",
    "slurm_job_state",
    "submission_error",
    "taken_over_at",
)
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_REFERENCE = re.compile(r"\$+(ref|id|db)")


def build_state_fields(state: JobState | None) -> Document:
    """Return the fields of a document that follow from the state of its job."""
    return {
        "slurm_job_state": state.value if state else None,
        "is_open": state is not None and not state.is_settled,
    }


def record_to_document(record: TaskRecord) -> Document:
    """Return the document of a new record."""
    document = {
        "uuid": record.uuid,  # which is unique; see take_over.py
        "task": escape_references(record.task),
        "slurm_username": record.slurm_username,
        "slurm_job_id": record.slurm_job_id,
        "is_reserved": record.is_reserved,
        **build_state_fields(record.slurm_job_state),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "job": replace_enums(record.job.model_dump()) if record.job else None,
        "notifications": notifications_to_documents(record.notifications),
        "warnings": list(record.warnings),
        "submission_error": record.submission_error,
        "alarm_at": record.alarm_at,
        "caller": record.caller,
        "kind": record.kind.value,
    }
    if record.resubmitted_from is not None:  # its index has only the documents with this field
        document["resubmitted_from"] = record.resubmitted_from
    if record.never_resubmitted:  # until it is: see resubmission_marks.py
        document["never_resubmitted"] = True
    if record.defaults:
        document["defaults"] = escape_references(record.defaults)
    if record.idempotency_key is not None:  # its index is sparse
        document["idempotency_key"] = record.idempotency_key
    return document


def escape_references(value: object) -> object:
    """Return `value` with a further `$` before the keys `$ref`, `$id` and `$db`.

    The driver reads an object with `$ref` and `$id` as a reference of its own.
    """
    if isinstance(value, dict):
        return {_escape_key(key): escape_references(item) for key, item in value.items()}
    return [escape_references(item) for item in value] if isinstance(value, list) else value


def unescape_references(value: object) -> object:
    """Return the value that `escape_references` was given."""
    if isinstance(value, dict):
        return {_unescape_key(key): unescape_references(item) for key, item in value.items()}
    return [unescape_references(item) for item in value] if isinstance(value, list) else value


def _escape_key(key: str) -> str:
    return f"${key}" if _REFERENCE.fullmatch(key) else key


def _unescape_key(key: str) -> str:
    return key[1:] if key.startswith("$$") and _REFERENCE.fullmatch(key) else key


def replace_enums(document: Document) -> Document:
    """Return a document with plain strings in place of enumerations, which BSON does not have."""
    return {str(key): _replace_enum(value) for key, value in document.items()}


def _replace_enum(value: object) -> object:
    if isinstance(value, dict):
        return replace_enums(value)
    return str(value) if isinstance(value, JobState | NotificationStatus) else value


def document_to_record(document: Document) -> TaskRecord:
    """Return the record in a document, whichever version of this service or of the older one wrote it.

    Raises:
        ValueError: The document cannot be read.
    """
    if is_of_older_server(document):
        document = {**document, **translate_fields(document)}
    notifications = [document_to_notification(item) for item in document.get("notifications", ())]
    task, key = unescape_references(document["task"]), document.get("uuid")
    has_own_key = isinstance(task, dict) and key != str(task.get("uuid"))
    defaults = unescape_references(document.get("defaults", {}))
    fields = {
        "task": task,
        "notifications": notifications,
        "key": key if has_own_key else None,
        "defaults": defaults,
    }
    record = TaskRecord.model_validate({**document, **fields})
    if "kind" in document:
        return record
    return record.model_copy(update={"kind": guess_kind(record.uuid, record.job)})


def document_to_open_job(document: Document) -> OpenJob:
    """Return the part of a record that a polling cycle reads.

    Raises:
        ValueError: The older server left out what polling needs, or wrote it in a form of its own.
    """
    job_id, created_at, username = map(document.get, ("slurm_job_id", "created_at", "slurm_username"))
    job_id = parse_stored_job_id(job_id)
    if job_id is None or not isinstance(created_at, datetime) or not isinstance(username, str):
        raise ValueError("its job cannot be polled without a job id, a time of creation and a user name")
    job = document.get("job") or {}
    return OpenJob(
        document["uuid"],
        job_id,
        parse_stored_state(document.get("slurm_job_state")),
        username,
        created_at if created_at.year >= _LONG_AGO.year else _LONG_AGO,
        job.get("submit_time"),
        document.get("alarm_at"),
        job.get("array_tasks") is not None,
        "taken_over_at" in document,
    )


def document_to_state(document: Document) -> RecordState:
    """Return the state of a record, from the fields in STATE_FIELDS."""
    username = str(document.get("slurm_username", ""))
    state, job_id = document.get("slurm_job_state"), parse_stored_job_id(document.get("slurm_job_id"))
    if state is None and "taken_over_at" not in document:
        return RecordState(
            username, job_id, None, job_id is None and document.get("submission_error") is None
        )
    return RecordState(username, job_id, parse_stored_state(state), is_reserved=False)


def document_to_notification(document: Document) -> Notification:
    """Return the notification in an item of the list `notifications`."""
    return Notification.model_validate({**document, "params": unescape_references(document["params"])})


def notifications_to_documents(notifications: Sequence[Notification]) -> list[Document]:
    """Return the notifications as items of the list `notifications`."""
    return [
        replace_enums({**item.model_dump(exclude={"params"}), "params": escape_references(item.params)})
        for item in notifications
    ]
