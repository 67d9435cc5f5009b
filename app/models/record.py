"""The record of a task, with its notifications, as the store keeps it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from app.job_state import JobState
from app.models.content import Content
from app.models.job import SlurmJob, Utc
from app.models.task_defaults import merge_defaults

# The comment of a job that this service submitted begins with this tag and the uuid.
JOB_TAG = "slurm-proxy:"


class RecordKind(StrEnum):
    """The way in which this service came to know of a job."""

    SUBMITTED = "submitted"  # by POST /submit: the task says how the job was submitted
    # By POST /monitor: the job was submitted elsewhere, whatever the task holds. Also by `records adopt`: the
    # task is not known.
    REGISTERED = "registered"


def guess_kind(uuid: str, job: SlurmJob | None) -> RecordKind:
    """Return the kind of a record that an earlier version wrote, which did not store kinds.

    The record of a registered job had Slurm's description of the job from the start, and that job's comment
    has no tag. In doubt a record counts as registered, so that no path is made up for it.
    """
    is_submitted = job is None or (job.comment or "").partition(" ")[0] == JOB_TAG + uuid
    return RecordKind.SUBMITTED if is_submitted else RecordKind.REGISTERED


def utc_now() -> datetime:
    """Return the time of this host, to the millisecond: no store keeps finer ones."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


_MAX_CLOCK_DIFFERENCE = timedelta(minutes=10)


def has_ended(state: JobState | None, *, is_reserved: bool) -> bool:
    """Return whether a task has ended: its job has a final state, or its submission has failed."""
    return not is_reserved if state is None else state.is_settled


def has_succeeded(state: JobState | None, *, is_reserved: bool) -> bool | None:
    """Return whether a task has succeeded; None before its end, and if the outcome is unknown."""
    if not has_ended(state, is_reserved=is_reserved) or state is JobState.UNKNOWN:
        return None
    return state is not None and state.is_success


class NotificationStatus(StrEnum):
    """The stage of a notification."""

    DUE = "due"
    CLAIMED = "claimed"
    RETRYING = "retrying"
    GATHERED = "gathered"
    SENT = "sent"
    DEAD = "dead"
    UNDELIVERABLE = "undeliverable"

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON Schema without this class's docstring, which is no text for callers."""
        described = handler(schema)
        handler.resolve_ref_schema(described).pop("description", None)
        return described


class Notification(BaseModel):
    """One message to one receiver by one channel, and its delivery so far."""

    model_config = ConfigDict(frozen=True)

    id: str  # the same at every attempt: receivers can deduplicate by it
    event: str
    method: str
    params: dict[str, Any]
    content: Content | None = None  # None for one that is undeliverable from the start
    status: NotificationStatus
    created_at: Utc
    attempts: int = 0
    attempt_after: Utc | None = None  # when it may be claimed (again); None once it is settled
    claim: str | None = None
    last_error: str | None = None
    sent_at: Utc | None = None
    revived_at: Utc | None = None  # when an operator last retried it
    recipient: str | None = None  # the receiver of the digest, if it waits for one
    digest: str | None = None  # the id of the digest that contains this message


class TaskRecord(BaseModel):
    """A task, its job and its notifications.

    A record without `slurm_job_id` is a reservation, unless `submission_error` says why there is no job.
    """

    model_config = ConfigDict(frozen=True)

    kind: RecordKind = RecordKind.SUBMITTED
    task: dict[str, Any]  # verbatim
    slurm_username: str
    slurm_job_id: int | None = None
    slurm_job_state: JobState | None = None
    created_at: Utc
    updated_at: Utc
    job: SlurmJob | None = None
    notifications: tuple[Notification, ...] = ()
    idempotency_key: str | None = None
    warnings: tuple[str, ...] = ()  # in the answer to the submission
    submission_error: str | None = None
    alarm_at: Utc | None = None  # the next check for events that come without a change of state
    caller: str | None = None  # the caller's name
    key: str | None = None  # in the store; None if it is the uuid, which no other record has
    taken_over_at: Utc | None = None  # from the database of the older server
    resubmitted_from: str | None = None  # the uuid of the task that was resubmitted as this one
    never_resubmitted: bool = False  # True if the store knows that no task was resubmitted from this one
    defaults: dict[str, dict[str, Any]] = {}  # of the catalogue, by `slurm` and `dirs`, where they applied

    @property
    def uuid(self) -> str:
        """Return the uuid of the task; the key of the record if a task of the older server has none."""
        return str(self.task.get("uuid") or self.key or "")

    @property
    def full_task(self) -> dict[str, Any]:
        """Return the task with the defaults of the catalogue at the time of the submission."""
        return merge_defaults(self.task, self.defaults)

    def with_notifications(
        self, notifications: Iterable[Notification], alarm_at: datetime | None
    ) -> "TaskRecord":
        """Return the record with more notifications, and with the time of its next check for events."""
        added = (*self.notifications, *notifications)
        return self.model_copy(update={"notifications": added, "alarm_at": alarm_at})

    @property
    def is_open(self) -> bool:
        """Return whether there is a job whose end was not seen yet."""
        return self.slurm_job_state is not None and not self.slurm_job_state.is_settled

    @property
    def has_ended(self) -> bool:
        """Return whether the task has ended: its job has a final state, or its submission has failed."""
        return has_ended(self.slurm_job_state, is_reserved=self.is_reserved)

    @property
    def has_succeeded(self) -> bool | None:
        """Return whether the task has succeeded; None before its end, and if the outcome is unknown."""
        return has_succeeded(self.slurm_job_state, is_reserved=self.is_reserved)

    @property
    def is_freed(self) -> bool:
        """Return whether there is no job and never was, so that the uuid may be used again."""
        return self.slurm_job_id is None and self.slurm_job_state is None and not self.is_reserved

    @property
    def is_reserved(self) -> bool:
        """Return whether the record is a reservation, whose job is not known yet."""
        return self.slurm_job_id is None and self.slurm_job_state is None and self.submission_error is None


class OpenJob(NamedTuple):
    """Fields of a record that a polling cycle reads, for a job that is open or ended a short while ago.

    A cycle may read 100,000 of them: a named tuple is made in half the time of a dataclass.
    """

    uuid: str
    slurm_job_id: int
    slurm_job_state: JobState
    slurm_username: str
    created_at: datetime
    submit_time: datetime | None  # Slurm's own, once it was seen
    alarm_at: datetime | None = None
    is_array: bool = False  # only set for a job that has ended
    is_taken_over: bool = False  # from the older server: the job has no tag, and may be older than its record

    @property
    def earliest_submission(self) -> datetime:
        """Return a time before which the job cannot have been submitted."""
        return min(self.created_at, self.submit_time or self.created_at) - _MAX_CLOCK_DIFFERENCE


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one record by one poll; applied in one atomic write, or not at all."""

    uuid: str
    before: JobState | None
    after: JobState
    at: datetime
    job: SlurmJob | None
    notifications: tuple[Notification, ...] = ()
    submission_error: str | None = None
    reserved_at: datetime | None = None  # which reservation it is about, where there is no job
    alarm_at: datetime | None = None
