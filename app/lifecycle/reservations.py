"""Manage the reservations of this process: a uuid is stored before its task is sent to Slurm.

`accept` or `release` ends a reservation. What stays open is settled by reconcile.py.
"""

import logging
from collections import deque
from collections.abc import Sequence

from app.errors import DuplicateUuid, SlurmUnavailable, StoreUnavailable
from app.job_state import JobState
from app.lifecycle.clock_guard import ClockGuard
from app.models.record import TaskRecord
from app.slurm.client import SlurmClient
from app.store.records import RecordStore

logger = logging.getLogger(__name__)

_STORE_LOOKUP_SECONDS = 1.0  # for a look-up in the store while Slurm is down
_MAX_TRIES = 5  # to reserve a uuid while other requests release it


class Reservations:
    """The uuids in the store for which no job is known yet. Thread-safe."""

    def __init__(self, store: RecordStore, slurm: SlurmClient, clocks: ClockGuard) -> None:
        """Begin without reservations. `clocks`: refuses reservations while the clocks disagree."""
        self._store = store
        self._slurm = slurm
        self._clocks = clocks
        self._unrecorded: deque[tuple[TaskRecord, int, tuple[str, ...]]] = deque()

    def reserve(self, record: TaskRecord) -> TaskRecord | None:
        """Store the reservation; return the record that has its idempotency key or its uuid, if there is one.

        While Slurm is known to be down, or the clocks disagree, nothing is stored.

        Raises:
            ClocksDisagree: This host's clock or the store's is too far from Slurm's.
            SlurmUnavailable: Slurm does not answer.
            SlurmMisbehaved: An answer of slurmrestd cannot be used.
            StoreUnavailable: Other requests take the uuid and give it back at this moment.
        """
        if (owner := self._find_owner_during_outage(record)) is not None:
            return owner
        for _ in range(_MAX_TRIES):
            try:
                self._store.add_record(record)
            except DuplicateUuid:
                if (owner := self._find_owner(record)) is not None:
                    return owner
                continue  # the request that had the uuid has just given it back
            return None
        words = "other requests use the same uuid at this moment; try again"
        raise StoreUnavailable(words, for_callers=words)

    def find_owner(self, record: TaskRecord) -> TaskRecord | None:
        """Return the record that `reserve` would return, and store nothing.

        Raises:
            ClocksDisagree: This host's clock or the store's is too far from Slurm's.
            SlurmUnavailable: Slurm does not answer.
            SlurmMisbehaved: An answer of slurmrestd cannot be used.
        """
        return self._find_owner_during_outage(record) or self._find_owner(record)

    def _find_owner_during_outage(self, record: TaskRecord) -> TaskRecord | None:
        """Return None if the task can be submitted now; else the owner, which then answers the request.

        Raises:
            ClocksDisagree: A clock is too far from Slurm's, and there is no owner.
            SlurmUnavailable: Slurm does not answer, and there is no owner.
        """
        try:
            self._clocks.check(record.created_at)
            self._slurm.require_up()
        except SlurmUnavailable:
            if (owner := self._find_owner(record, within=_STORE_LOOKUP_SECONDS)) is None:
                raise
            return owner
        return None

    def _find_owner(self, record: TaskRecord, within: float | None = None) -> TaskRecord | None:
        """Return the record that has the idempotency key of this one, else the record that has its uuid.

        Return None if that record is freed.
        """
        key = record.idempotency_key
        by_key = self._store.find_by_idempotency_key(key, within) if key is not None else None
        owner = by_key or self._store.find_by_uuids([record.uuid], within).get(record.uuid)
        return None if owner is None or owner.is_freed else owner

    def release(self, record: TaskRecord) -> None:
        """Free the uuid, because the submission made no job.

        If the store does not answer, the reservation stays, and is reconciled later.
        """
        try:
            self._store.release_reservation(record)
        except StoreUnavailable as error:
            logger.warning("task %s made no job, but its reservation stays for now: %s", record.uuid, error)

    def accept(self, record: TaskRecord, job_id: int, warnings: Sequence[str]) -> list[str]:
        """Turn the reservation into the record of a job; return further warnings for the caller.

        If the store does not answer, `record_unrecorded_jobs` repeats the change later. The change is not
        durable. If a crash of the store loses it, the reservation is open again, and the reconciler finds the
        job.
        """
        try:
            self._store.accept_job(
                record, job_id, JobState.PENDING, self._store.now(), warnings, durable=False
            )
        except StoreUnavailable as error:
            logger.warning("job %s of task %s runs, but is not recorded yet: %s", job_id, record.uuid, error)
            self._unrecorded.append((record, job_id, tuple(warnings)))
            return ["the database did not answer; the record will be completed as soon as it does"]
        return []

    def record_unrecorded_jobs(self) -> None:
        """Complete the records of jobs that the store could not keep at the time.

        Raises:
            StoreUnavailable: The store still does not answer.
        """
        for _ in range(len(self._unrecorded)):
            record, job_id, warnings = self._unrecorded[0]
            self._store.accept_job(record, job_id, JobState.PENDING, self._store.now(), warnings)
            logger.info("job %s of task %s is recorded now", job_id, record.uuid)
            self._unrecorded.popleft()


def make_duplicate_error(record: TaskRecord, owner: TaskRecord | None) -> DuplicateUuid:
    """Return the error for a uuid that another record has.

    The error names the job only if both records have the same user.
    """
    is_same_user = owner is not None and owner.slurm_username == record.slurm_username
    return DuplicateUuid(record.uuid, owner.slurm_job_id if owner is not None and is_same_user else None)
