"""The summary of a task: what a list shows of its record, without reading the whole task and its messages.

The OpenAPI document is made of this model: callers read its docstring and descriptions.
"""

from pydantic import BaseModel, ConfigDict, Field

from app.job_state import JobState
from app.models.job import Utc
from app.models.record import NotificationStatus


class TaskSummary(BaseModel):
    """A task in a list. The facts of its job are those of the last poll, and null before the first one."""

    model_config = ConfigDict(frozen=True)

    uuid: str
    slurm_job_id: int | None = Field(description="Null while the job is not known, or if there is none.")
    slurm_job_state: JobState | None
    ended: bool = Field(description="Whether the job has ended, or the submission has failed.")
    succeeded: bool | None = Field(
        description="Whether the task has succeeded; null before its end, and if the outcome is unknown."
    )
    reason: str | None = Field(
        description="Slurm's reason when the state was last recorded: why the job failed, or why it waits."
        " Null for a job that has waited since its submission; a GET of the task has the present reason."
    )
    slurm_username: str
    name: str | None = Field(description="The name of the task.")
    job_name: str | None = Field(description="The name of the job in Slurm, or else in the task.")
    partition: str | None = Field(description="The partition of the job, or else of the task.")
    created_at: Utc
    updated_at: Utc
    submit_time: Utc | None
    start_time: Utc | None = Field(description="For a job that waits, the start that Slurm predicts.")
    end_time: Utc | None
    exit_code: int | None
    signal: int | None = Field(description="The signal that ended the job.")
    resubmitted_from: str | None = Field(description="The uuid of the task that was resubmitted as this one.")
    submission_error: str | None = Field(
        description="Why the task has no job, or why it is unknown whether there is one."
    )
    notifications: dict[NotificationStatus, int] = Field(
        description="The number of the task's messages by status."
    )


def keep_text(value: object) -> str | None:
    """Return a value of a task if it is a text; in the task of a registered job it may be anything."""
    return value if isinstance(value, str) else None
