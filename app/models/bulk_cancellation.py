"""The body and the answer of `POST /monitor/cancel`.

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.models.rules import Line
from app.models.task_filter import TaskFilter


class CancelRequest(BaseModel):
    """Request to cancel all open tasks that meet a filter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: TaskFilter = Field(
        description="The tasks to cancel, by one condition at least.", json_schema_extra={"minProperties": 1}
    )
    dry_run: StrictBool = Field(False, description="Whether to list the tasks without cancelling any.")
    after: Line | None = Field(
        None, description="The cursor `next` of the previous answer, to continue after its tasks."
    )


class CancelOutcome(StrEnum):
    """Outcome of the request to cancel a task."""

    CANCELLED = "cancelled"
    WOULD_BE_CANCELLED = "would_be_cancelled"
    ALREADY_OVER = "already_over"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


class CancelledTask(BaseModel):
    """A task that met the filter, and the outcome of its cancellation."""

    uuid: str
    slurm_job_id: int | None = Field(description="Null while the job is not known.")
    slurm_username: str
    outcome: CancelOutcome = Field(
        description="`cancelled`; `would_be_cancelled` in a dry run; `already_over` if the job has ended;"
        " `failed`, with an `error`; `not_tried` if Slurm did not answer, or the time for the request was"
        " over: send the request again."
    )
    error: str | None = Field(
        None, description="Why the job was not cancelled.", exclude_if=lambda value: value is None
    )


class CancelledTasks(BaseModel):
    """The tasks that met the filter, at most 1,000, the newest first."""

    tasks: list[CancelledTask]
    next: str | None = Field(
        description="The cursor of the next tasks, for `after`; null if there are no more."
    )
    dry_run: bool
