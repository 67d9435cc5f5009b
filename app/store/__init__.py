"""What slurm-proxy asks of a database: the TaskStore protocol, kept by MongoDB and by SQLite."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.job_state import JobState
from app.models.record import Change, Notification, NotificationStatus, OpenJob, TaskRecord


@dataclass(frozen=True, slots=True)
class Claim:
    """A notification that this process may send until its claim expires."""

    uuid: str
    notification: Notification


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt to send."""

    status: NotificationStatus
    at: datetime
    attempt_after: datetime | None = None  # the next attempt, where there is one
    error: str | None = None


class TaskStore(Protocol):
    """Keeps records. What a method has acknowledged survives kill -9; each method is atomic.

    StoreUnavailable from any of them when the database does not answer. Times are UTC, to the millisecond.
    """

    def prepare(self) -> None:
        """Connects, and makes the indexes that every query needs."""

    def add(self, record: TaskRecord) -> None:
        """Keeps a new record; DuplicateUuid if its uuid was ever used."""

    def release(self, uuid: str) -> None:
        """Forgets a reservation, and only that: the uuid may be used again."""

    def accept(self, uuid: str, job_id: int, state: JobState, at: datetime) -> bool:
        """Turns a reservation into the record of a job; False if it was none."""

    def by_uuids(self, uuids: Sequence[str]) -> dict[str, TaskRecord]:
        """The records with these uuids, as far as there are any."""

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        """The newest record of that job id: Slurm uses ids again."""

    def open_jobs(self) -> list[OpenJob]:
        """All jobs whose end is still to come."""

    def reservations(self, before: datetime) -> list[TaskRecord]:
        """Reservations made before that moment and still without a job."""

    def apply(self, changes: Iterable[Change]) -> int:
        """Applies each change whose record is still in the state `before`, with its notifications.

        One write for all, each record atomic by itself; returns how many were applied.
        """

    def claim(self, method: str, token: str, now: datetime, until: datetime) -> Claim | None:
        """Takes one notification of `method` that is due at `now`; after `until` others may take it."""

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        """Keeps what became of a claimed notification; False if the claim had been taken over."""

    def lead(self, owner: str, now: datetime, until: datetime) -> bool:
        """Takes or renews the monitor's lease; False while somebody else holds it."""

    def resign(self, owner: str) -> None:
        """Gives the lease back, so that another process can lead at once."""

    def ping(self) -> None:
        """Returns if the database answers."""

    def close(self) -> None:
        """Closes the connections."""
