"""The answers of the service: each body is one of these models, with its fields in this order.

- `GET /monitor/task_uuid/...` and `GET /monitor/slurm_job_id/...` contain a `Shown`: in `slurm` the facts
  of the job (`SlurmFacts`), and in `monitor` the record (`Record`) with its notifications.
- `GET /monitor/slurm_job_state/...` contains `Records`.
- `POST /submit` returns a `Submitted`, `POST /monitor` a `Record`.

To add a field to an answer, add it here. A field that has the name of one of TaskRecord, Notification or
SlurmJob takes its value from there; app/lifecycle/responses.py sets the others. The OpenAPI document is made
of these models: callers read their docstrings and descriptions.
"""

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from app.job_state import JobState
from app.models.job import SlurmJob, Utc
from app.models.record import NotificationStatus

# Facts of a job that stand at the end of an answer, where there are any.
_LAST_FACTS = ("as_of", "stale", "error")


def _is_empty(value: object) -> bool:
    """Return whether an answer leaves the field out because the value is empty."""
    return not value


class Submitted(BaseModel):
    """A task that was taken."""

    uuid: str
    slurm_job_id: int
    slurm_job_state: JobState
    warnings: list[str] = Field(
        default_factory=list,
        description="What is to be known all the same; only where there is anything.",
        exclude_if=_is_empty,
    )


class ShownNotification(BaseModel):
    """One message by one channel, and how far it has come."""

    id: str = Field(description="The same at every attempt: receivers can deduplicate by it.")
    event: str
    method: str
    status: NotificationStatus
    created_at: Utc
    attempts: int
    attempt_after: Utc | None = Field(description="When it is tried (again).")
    last_error: str | None
    sent_at: Utc | None
    revived_at: Utc | None = Field(
        None, description="When an operator last retried it.", exclude_if=_is_empty
    )
    digest: str | None = Field(
        None, description="The id of the notification that brings this one along.", exclude_if=_is_empty
    )
    to: str
    subject: str
    text: str


class Record(BaseModel):
    """What is kept of a task. Without `slurm_job_id` there is no job, or not yet: see `submission_error`."""

    slurm_username: str
    slurm_job_id: int | None
    slurm_job_state: JobState | None
    created_at: Utc
    updated_at: Utc
    warnings: list[str] = Field(
        default_factory=list, description="Those of the first answer.", exclude_if=_is_empty
    )
    submission_error: str | None = Field(None, description="Why there is no job.", exclude_if=_is_empty)
    task: dict[str, Any] = Field(description="As it was sent, verbatim.")
    notifications: list[ShownNotification]


class SlurmFacts(SlurmJob):
    """What Slurm says of the job now, or said last; beside user, id and state only what is known."""

    job_id: int | None  # type: ignore[assignment]  # a task need not have a job
    job_state: JobState | None  # type: ignore[assignment]
    run_seconds: float | None = None
    as_of: Utc | None = Field(None, description="When Slurm reported these facts.")
    hint: str | None = Field(None, description="What may help a job that failed or cannot start.")
    stale: bool = Field(False, description="Slurm does not answer: these are the last known facts.")
    error: str | None = Field(None, description="Why they are stale.")

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields that were set, in the order that callers know.

        A fact that Slurm does not report is null. Without a job there are no facts but user, id and state.
        """
        body = {name: value for name, value in handler(self).items() if name in self.model_fields_set}
        last = {name: body.pop(name) for name in _LAST_FACTS if name in body}
        if "name" in body:  # Slurm has described the job
            return body | last
        return {"username": body.pop("username"), **body, **last}


class Shown(BaseModel):
    """A record, and what Slurm says of its job."""

    slurm: SlurmFacts
    monitor: Record


class Records(BaseModel):
    """Records of one state."""

    monitor: list[Record] = Field(description="The newest first, at most 1,000.")


class KeptNotification(ShownNotification):
    """A notification with the task that it belongs to."""

    task_uuid: str

    @model_serializer(mode="wrap")
    def _put_task_first(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"task_uuid": self.task_uuid, **handler(self)}


class Notifications(BaseModel):
    """The oldest first."""

    notifications: list[KeptNotification]
    more: bool = Field(description="There are more than the limit.")


class Retried(BaseModel):
    """What was set going once more."""

    retried: int = Field(description="How many are sent again.")


class Cancelled(BaseModel):
    """The job that was told to end."""

    uuid: str
    slurm_job_id: int
    slurm_username: str


class SlurmAnswer(BaseModel):
    """An answer of slurmrestd, unchanged; of an answer that is no JSON object, its `status` and `text`."""

    model_config = ConfigDict(extra="allow")


class Error(BaseModel):
    """Every answer that is not a success has this form."""

    error: str = Field(description="One sentence for the person who reads it.")
    code: str = Field(description="One word for programs.")
    details: list[str] = Field(
        default_factory=list, description="Every fault, each with the path of its field."
    )
    slurm_job_id: int | None = Field(
        None, description="With duplicate_uuid: the job that the uuid belongs to, if it is known."
    )
