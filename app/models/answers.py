"""What callers are answered, as the document of the service describes it (see app/web/openapi/).

The answers themselves are made in app/lifecycle/; tests hold them against these models.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.job_state import JobState
from app.models.job import SlurmJob, Utc
from app.models.record import NotificationStatus


class Submitted(BaseModel):
    """A task that was taken."""

    uuid: str
    slurm_job_id: int
    slurm_job_state: JobState
    warnings: list[str] = Field(
        default_factory=list, description="What is to be known all the same; only where there is anything."
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
    revived_at: Utc | None = Field(None, description="When an operator last retried it.")
    digest: str | None = Field(None, description="The id of the notification that brings this one along.")
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
    warnings: list[str] = Field(default_factory=list, description="Those of the first answer.")
    submission_error: str | None = Field(None, description="Why there is no job.")
    task: dict[str, Any] = Field(description="As it was sent, verbatim.")
    notifications: list[ShownNotification]


class SlurmFacts(SlurmJob):
    """What Slurm says of the job now, or said last; beside user, id and state only what is known."""

    job_id: int | None  # type: ignore[assignment]  # a task need not have a job
    job_state: JobState | None  # type: ignore[assignment]
    ran: float | None = Field(None, alias="run_seconds")  # which is a method of the job's
    as_of: Utc | None = Field(None, description="When Slurm reported these facts.")
    hint: str | None = Field(None, description="What may help a job that failed or cannot start.")
    stale: bool = Field(False, description="Slurm does not answer: these are the last known facts.")
    error: str | None = Field(None, description="Why they are stale.")


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
