"""The body and the answer of `POST /monitor/cancel`.

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.models.rules import Line
from app.models.task_filter import TaskFilter


class CancelRequest(BaseModel):
    """Which tasks to cancel: all that have not ended and meet the filter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: TaskFilter = Field(description="At least one condition.", json_schema_extra={"minProperties": 1})
    dry_run: StrictBool = Field(False, description="Whether to list the tasks only, and cancel none.")
    after: Line | None = Field(
        None, description="The `next` of the answer before, to go on with the tasks after those."
    )


class CancelOutcome(StrEnum):
    """What became of one of several tasks."""

    CANCELLED = "cancelled"
    WOULD_BE_CANCELLED = "would_be_cancelled"
    ALREADY_OVER = "already_over"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


class CancelledTask(BaseModel):
    """One task that was to be cancelled."""

    uuid: str
    slurm_job_id: int | None = Field(description="Null while the job is not known.")
    slurm_username: str
    outcome: CancelOutcome = Field(
        description="`cancelled`; `would_be_cancelled` in a dry run; `already_over` if the job has ended;"
        " `failed`, with an `error`; `not_tried` if Slurm did not answer, or the time for the request was"
        " over: send the request again."
    )
    error: str | None = Field(None, description="Why.", exclude_if=lambda value: value is None)


class CancelledTasks(BaseModel):
    """The tasks that met the filter, at most 1,000, the newest first."""

    tasks: list[CancelledTask]
    next: str | None = Field(
        description="The value of `after` for the tasks after these; null if there are no more."
    )
    dry_run: bool
