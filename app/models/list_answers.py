"""The answers of lists: `GET /monitor` (`TaskList`) and `GET /monitor/slurm_job_state/...` (`StatePage`).

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from pydantic import BaseModel, Field

from app.models.answers import Record
from app.models.task_summary import TaskSummary


def _is_absent(value: object) -> bool:
    return value is None


class TaskPage(BaseModel):
    """A page of a list of tasks."""

    tasks: list[TaskSummary]
    next: str | None = Field(
        description="The cursor of the next page, for `after`; null on the last page. A page with `next` may"
        " have fewer tasks than `limit`, or none, if few of the checked tasks meet the conditions."
    )


class TaskList(TaskPage):
    """A page of tasks; or the tasks of the uuids in the query, in the order of the query."""

    unknown: list[str] | None = Field(
        default=None,
        description="Only if the query has uuids: those for which no task was found.",
        exclude_if=_is_absent,
    )


class StatePage(TaskPage):
    """A page of the tasks whose jobs are in one state."""

    monitor: list[Record] = Field(description="The whole records of these tasks.")
