"""Records as documents, and back."""

from collections.abc import Sequence

from app.job_state import JobState
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.store.mongo.database import Document


def state_fields(state: JobState | None) -> Document:
    return {
        "slurm_job_state": state.value if state else None,
        "is_open": state is not None and not state.is_settled,
    }


def new_document(record: TaskRecord) -> Document:
    document = {
        "task": record.task,
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
    }
    if record.idempotency_key is not None:  # its index is sparse
        document["idempotency_key"] = record.idempotency_key
    return document


def plain(document: Document) -> Document:
    """Enumerations as plain words, which is all that BSON knows."""
    return {
        str(key): plain(value) if isinstance(value, dict) else str(value) if _is_word(value) else value
        for key, value in document.items()
    }


def _is_word(value: object) -> bool:
    return isinstance(value, JobState | NotificationStatus)


def read_record(document: Document) -> TaskRecord:
    """Old deployments' documents have fewer fields; what is not there is None."""
    return TaskRecord.model_validate(document)


def dumped(notifications: Sequence[Notification]) -> list[Document]:
    return [plain(item.model_dump()) for item in notifications]
