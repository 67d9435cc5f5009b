"""The answers about tasks, messages and errors: models of the JSON bodies.

A body has the fields of its model in this order, with two exceptions. `SlurmFacts` moves the fields of
`_LAST_FACTS` to the end, and begins with the user until Slurm has described the job. `KeptNotification`
begins with `task_uuid`.

- `GET /monitor/task_uuid/...` and `GET /monitor/slurm_job_id/...` contain a `Shown`. Its `monitor` is the
  record (`Record`) with its notifications (`ShownNotification`). Its `slurm` has the facts of the job
  (`SlurmFacts`): the fields of `SlurmJob` in `app/models/job.py`, then those that are added below. The fields
  of `SlurmJob` are job_id, username, job_state, reason, exit_code, signal, name, partition, nodes, cpus,
  memory_mb, time_limit_minutes, submit_time, start_time, end_time, suspended_seconds, max_memory_bytes,
  cpu_seconds, working_directory, standard_output, standard_error, comment, restarts, array_job_id,
  array_tasks and failed_tasks.
- The answers of lists are in `list_answers.py`.
- `POST /submit` returns a `Submitted`, or a `DryRun` with `dry_run=true`. `POST /monitor` returns a `Record`.
- `GET /healthz` returns a `Health`. Those of `GET /whoami` and `GET /catalogue` are in `caller_answers.py`.

To add a field to an answer, add it here; to add a fact of Slurm, add it to `SlurmJob`. A field that has the
name of one of TaskRecord, Notification or SlurmJob takes its value from there; `app/lifecycle/responses.py`
sets the others. The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from app.job_state import JobState
from app.models.job import SlurmJob, Utc
from app.models.notification_request import EventName, PendingOver
from app.models.record import NotificationStatus

# Facts of a job that come last in an answer, if they are set.
_LAST_FACTS = ("as_of", "stale", "error")


def _is_empty(value: object) -> bool:
    """Return whether an answer leaves the field out because the value is empty."""
    return not value


class Submitted(BaseModel):
    """The answer to a submission: the job that Slurm accepted for the task."""

    uuid: str
    slurm_job_id: int
    slurm_job_state: JobState
    warnings: list[str] = Field(
        default_factory=list,
        description="Warnings about the task or its job, such as a key that may be misspelt. Absent if there"
        " are none.",
        exclude_if=_is_empty,
    )


class PlannedMessage(BaseModel):
    """The messages that one receiver would get by one method."""

    method: str
    to: str
    events: list[EventName | PendingOver] = Field(description="The events that would be announced.")
    error: str | None = Field(description="Why no message can be sent by this method.")


class DryRun(BaseModel):
    """The answer to a dry run: what would be submitted. Nothing was reserved, stored or submitted."""

    valid: bool = Field(description="Always true: a task with faults is answered with an error.")
    script: str = Field(description="The script of the job.")
    slurm: dict[str, Any] = Field(
        description="The body that slurmrestd would get, in the cluster's API version, with the script."
    )
    notifications: list[PlannedMessage]
    warnings: list[str] = Field(
        description="Warnings about the task, such as a key that may be misspelt. Slurm may add others when"
        " the task is submitted."
    )


class ShownNotification(BaseModel):
    """A notification: one message by one method, with the status of its delivery."""

    id: str = Field(
        description="The same at every attempt, so that receivers can recognise a repeated message."
    )
    event: str
    method: str
    status: NotificationStatus
    created_at: Utc
    attempts: int
    attempt_after: Utc | None = Field(description="The time of the next attempt.")
    last_error: str | None
    sent_at: Utc | None
    revived_at: Utc | None = Field(
        None, description="When an operator last retried the message.", exclude_if=_is_empty
    )
    digest: str | None = Field(
        None, description="The id of the digest that contains this message.", exclude_if=_is_empty
    )
    to: str
    subject: str
    text: str


class Record(BaseModel):
    """The record of a task and its job.

    `slurm_job_id` is null while the job is not known, or if there is none: see `submission_error`.
    """

    slurm_username: str
    slurm_job_id: int | None
    slurm_job_state: JobState | None
    ended: bool = Field(description="Whether the job has ended, or the submission has failed.")
    succeeded: bool | None = Field(
        description="Whether the task has succeeded; null before its end, and if the outcome is unknown."
    )
    resubmitted_from: str | None = Field(
        None, description="The uuid of the task that was resubmitted as this one.", exclude_if=_is_empty
    )
    resubmitted_as: list[str] = Field(
        default_factory=list,
        description="The uuids of tasks resubmitted from this one, the newest first, at most 100. Only routes"
        " that return one record tell them, and only those that the caller may read.",
        exclude_if=_is_empty,
    )
    created_at: Utc
    updated_at: Utc
    warnings: list[str] = Field(
        default_factory=list,
        description="The warnings in the answer to the submission.",
        exclude_if=_is_empty,
    )
    submission_error: str | None = Field(
        None,
        description="Why the task has no job, or why it is unknown whether there is one.",
        exclude_if=_is_empty,
    )
    task: dict[str, Any] = Field(description="The task as the caller sent it, verbatim.")
    defaults: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="The options and folders that the catalogue added to the task, by `slurm` and `dirs`."
        " Absent if there are none.",
        exclude_if=_is_empty,
    )
    notifications: list[ShownNotification]


class SlurmFacts(SlurmJob):
    """The facts that Slurm reports about the job; after its end the stored ones, see `as_of`.

    User, id and state are always present, the other facts once Slurm has described the job. A fact that Slurm
    does not report is null, or 0 for `restarts` and `suspended_seconds`. `as_of`, `hint`, `stale` and `error`
    are absent if there is nothing to say.
    """

    job_id: int | None  # type: ignore[assignment]  # a task need not have a job
    job_state: JobState | None  # type: ignore[assignment]
    run_seconds: float | None = None
    as_of: Utc | None = Field(None, description="When Slurm reported these facts.")
    hint: str | None = Field(None, description="Advice for a job that failed or cannot start.")
    stale: bool = Field(
        False, description="True if Slurm does not answer: these are the facts that it reported last."
    )
    error: str | None = Field(None, description="Why the facts are stale.")

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields that were set, in the order that callers know."""
        body = {name: value for name, value in handler(self).items() if name in self.model_fields_set}
        last = {name: body.pop(name) for name in _LAST_FACTS if name in body}
        if "name" in body:  # Slurm has described the job
            return body | last
        return {"username": body.pop("username"), **body, **last}


class Shown(BaseModel):
    """A record, and the last known facts of its job."""

    slurm: SlurmFacts
    monitor: Record


class KeptNotification(ShownNotification):
    """A notification with the uuid of its task."""

    task_uuid: str

    @model_serializer(mode="wrap")
    def _put_task_first(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"task_uuid": self.task_uuid, **handler(self)}


class Notifications(BaseModel):
    """A list of notifications, the oldest first."""

    notifications: list[KeptNotification]
    more: bool = Field(description="Whether there are more notifications than `limit`.")


class Retried(BaseModel):
    """The answer to a retry."""

    retried: int = Field(description="How many messages will be sent again.")


class Health(BaseModel):
    """The answer of a process that lives. Slurm and the database may be down."""

    status: Literal["ok"] = "ok"


class SlurmAnswer(BaseModel):
    """An answer of slurmrestd, unchanged.

    If the answer is not a JSON object, the body has its `status` and its `text` instead.
    """

    model_config = ConfigDict(extra="allow")


class Error(BaseModel):
    """The body of every answer that reports an error."""

    error: str = Field(description="A sentence for people: what is wrong, and often what to do.")
    code: str = Field(description="A code for programs.")
    details: list[str] = Field(
        default_factory=list, description="All faults of the request, each with the path of its field."
    )
    slurm_job_id: int | None = Field(
        None,
        description="Only with `duplicate_uuid`: the job of the uuid if its task belongs to the same user,"
        " null otherwise. It is also null while the task has no job.",
    )
