"""Records as documents, and back."""

import re
from collections.abc import Sequence

from app.job_state import JobState
from app.models.record import (
    Notification,
    NotificationStatus,
    TaskRecord,
    kind_of_old_record,
)
from app.store.mongo.older_server import is_of_older_server, older_fields
from app.store.mongo.types import Document

_REFERENCE = re.compile(r"\$+(ref|id|db)")


def state_fields(state: JobState | None) -> Document:
    return {
        "slurm_job_state": state.value if state else None,
        "is_open": state is not None and not state.is_settled,
    }


def new_document(record: TaskRecord) -> Document:
    document = {
        "uuid": record.uuid,  # the key; see take_over.py
        "task": escaped(record.task),
        "slurm_username": record.slurm_username,
        "slurm_job_id": record.slurm_job_id,
        "is_reserved": record.is_reserved,
        **state_fields(record.slurm_job_state),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "job": plain(record.job.model_dump()) if record.job else None,
        "notifications": dumped(record.notifications),
        "warnings": list(record.warnings),
        "submission_error": record.submission_error,
        "alarm_at": record.alarm_at,
        "caller": record.caller,
        "kind": record.kind.value,
    }
    if record.idempotency_key is not None:  # its index is sparse
        document["idempotency_key"] = record.idempotency_key
    return document


def escaped(value: object) -> object:
    """As MongoDB may keep it: the driver reads an object with `$ref` and `$id` as a reference of its own."""
    if isinstance(value, dict):
        return {_escape(key): escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value


def unescaped(value: object) -> object:
    """What `escaped` was given."""
    if isinstance(value, dict):
        return {_unescape(key): unescaped(item) for key, item in value.items()}
    return [unescaped(item) for item in value] if isinstance(value, list) else value


def _escape(key: str) -> str:
    return f"${key}" if _REFERENCE.fullmatch(key) else key


def _unescape(key: str) -> str:
    return key[1:] if key.startswith("$$") and _REFERENCE.fullmatch(key) else key


def plain(document: Document) -> Document:
    """Enumerations as plain words, which is all that BSON knows."""
    return {
        str(key): plain(value) if isinstance(value, dict) else str(value) if _is_word(value) else value
        for key, value in document.items()
    }


def _is_word(value: object) -> bool:
    return isinstance(value, JobState | NotificationStatus)


def read_record(document: Document) -> TaskRecord:
    """Return the record in `document`, whichever version of this service or of the older one wrote it.

    Raises:
        ValueError: It cannot be read.
    """
    if is_of_older_server(document):
        document = {**document, **older_fields(document)}
    notifications = [read_notification(item) for item in document.get("notifications", ())]
    task, key = unescaped(document["task"]), document.get("uuid")
    has_own_key = isinstance(task, dict) and key != task.get("uuid")
    fields = {"task": task, "notifications": notifications, "key": key if has_own_key else None}
    record = TaskRecord.model_validate({**document, **fields})
    if "kind" in document:
        return record
    return record.model_copy(update={"kind": kind_of_old_record(record.uuid, record.job)})


def read_notification(document: Document) -> Notification:
    return Notification.model_validate({**document, "params": unescaped(document["params"])})


def dumped(notifications: Sequence[Notification]) -> list[Document]:
    return [
        plain({**item.model_dump(exclude={"params"}), "params": escaped(item.params)})
        for item in notifications
    ]
