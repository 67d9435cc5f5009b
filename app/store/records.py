"""The records of tasks in a store."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from app.job_state import JobState
from app.models.record import Change, OpenJob, TaskRecord
from app.models.record_state import RecordState
from app.store.clock import NEVER, StoreClock


class RecordStore(StoreClock, Protocol):
    """A store of records; a record without a job is a reservation. Each method is atomic.

    A change that a method has acknowledged survives a crash. With `durable=False`, a crash of the database or
    of its host, or a move of the primary, may lose it; the next durable change makes it durable, too.

    Every method raises StoreUnavailable if the database does not answer. `within` is always a number of
    seconds that a search may take, instead of the configured time.
    """

    def add_record(self, record: TaskRecord) -> None:
        """Add a new record, in place of one with the same uuid whose submission failed.

        Raises:
            DuplicateUuid: The uuid or the idempotency key of the record is used already.
        """

    def release_reservation(self, record: TaskRecord) -> None:
        """Delete this reservation, so that the uuid may be used again; keep any other record of the uuid."""

    def fail_reservation(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        """End this reservation without a job, so that the uuid and the idempotency key may be used again.

        Return False if the reservation is gone, has a job, or has failed already.
        """

    def accept_job(
        self,
        record: TaskRecord,
        job_id: int,
        state: JobState,
        at: datetime,
        warnings: Sequence[str] = (),
        *,
        durable: bool = True,
    ) -> bool:
        """Turn this reservation, even a failed one, into the record of a job.

        Return False if the reservation is gone, or has a job already. After the loss of a change that was
        not durable, the reservation is open again.
        """

    def find_by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        """Return the record with this idempotency key."""

    def find_by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        """Return the records with these uuids, by uuid."""

    def find_states(self, uuids: Sequence[str]) -> dict[str, RecordState]:
        """Return the states of the records with these uuids, by uuid; a narrow query for many at once."""

    def find_by_job_id(self, job_id: int) -> TaskRecord | None:
        """Return the newest record of that job id; Slurm reuses ids."""

    def list_usernames(self) -> list[str]:
        """Return the users that have a record."""

    def list_open_jobs(self) -> list[OpenJob]:
        """Return all jobs that have not ended."""

    def list_ended_jobs(self, since: datetime, limit: int) -> list[OpenJob]:
        """Return up to `limit` jobs whose end was recorded since then, the newest first, without UNKNOWN."""

    def count_open_tasks(self, caller: str) -> int:
        """Return how many tasks of this caller have not ended, reservations included."""

    def list_reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        """Return the reservations made before `before`, or later than `after`.

        Whether Slurm has a job for them is not known yet. A reservation that is dated later than now was made
        before the clock was set back.
        """

    def apply_changes(self, changes: Iterable[Change], fence: int) -> int:
        """Apply each change whose record is still in the state `before`; return how many were applied.

        A change is written together with its notifications. All changes are one write, in which each record
        is atomic. A leader with a newer fencing token than `fence` prevents the write; see `lease.py`.
        """
