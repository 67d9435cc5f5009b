"""Reservations: the intent that is on disk before Slurm hears of a task, and what becomes of it."""

import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import (
    DuplicateUuid,
    IdempotencyKeyReused,
    SlurmAmbiguous,
    SlurmUnavailable,
    StoreUnavailable,
)
from app.job_state import JobState
from app.lifecycle.clock_guard import ClockGuard
from app.models.record import TaskRecord
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)

_SHORT_LOOK = 1.0  # seconds that the store may take while Slurm is down anyway
_RESERVATIONS = 5  # times that a uuid is tried which others are giving back


class Reservations:
    """The uuids on disk for which no job is known yet."""

    def __init__(self, store: TaskStore, slurm: SlurmClient, clocks: ClockGuard) -> None:
        self._store = store
        self._slurm = slurm
        self._clocks = clocks
        self._unrecorded: deque[tuple[TaskRecord, int, tuple[str, ...]]] = deque()

    def reserve(self, record: TaskRecord, key: str | None) -> dict[str, Any] | None:
        """Store the reservation; return the first answer if the same request came before with its key.

        `key`: as it was sent. The record has it together with the caller's name, because each caller has keys
        of their own. While Slurm is known to be down, or the clocks disagree, nothing is stored.

        Raises:
            DuplicateUuid: The uuid was used before.
            IdempotencyKeyReused: The key came before with another task.
            SlurmAmbiguous: It is not known yet whether the first request with this key made a job.
            ClocksDisagree: This host's clock or the store's is too far from Slurm's.
            SlurmUnavailable: Slurm does not answer.
            SlurmMisbehaved: An answer of slurmrestd cannot be used.
        """
        try:
            self._clocks.check(record.created_at)
            self._slurm.check()
        except SlurmUnavailable:
            owner = self._owner(record, within=_SHORT_LOOK)
            if owner is None or owner.is_freed:
                raise
            return self._first_answer(record, owner, key)
        for _ in range(_RESERVATIONS):
            try:
                self._store.add(record)
            except DuplicateUuid:
                owner = self._owner(record)
                if owner is None or owner.is_freed:
                    continue  # its holder has just given it back
                return self._first_answer(record, owner, key)
            return None
        words = "other requests use the same uuid at this moment; try again"
        raise StoreUnavailable(words, for_callers=words)

    def _owner(self, record: TaskRecord, within: float | None = None) -> TaskRecord | None:
        """The record that stands in the way of this one: by its key, else by its uuid."""
        key = record.idempotency_key
        by_key = self._store.by_idempotency_key(key, within) if key is not None else None
        return by_key or self._store.by_uuids([record.uuid], within).get(record.uuid)

    def taken(self, record: TaskRecord) -> DuplicateUuid:
        """Why its uuid cannot be used."""
        return _taken(record, self._store.by_uuids([record.uuid]).get(record.uuid))

    def _first_answer(self, record: TaskRecord, first: TaskRecord, key: str | None) -> dict[str, Any]:
        """What the first request was answered, if this one is the same and says so by its key."""
        if key is None or (key != first.uuid and record.idempotency_key != first.idempotency_key):
            raise _taken(record, first)
        if _canonical(first.task) != _canonical(record.task):
            raise IdempotencyKeyReused(f"Idempotency-Key: {key} came first with another task")
        if first.slurm_job_id is not None:
            return first_answer(first, first.slurm_job_id, first.warnings)
        if first.is_reserved:
            raise cannot_be_told(first.uuid)
        raise DuplicateUuid(record.uuid, None)

    def release(self, record: TaskRecord) -> None:
        try:
            self._store.release(record)
        except StoreUnavailable as error:  # the caller is told what matters; the rest is settled later
            logger.warning("task %s made no job, but its reservation stays for now: %s", record.uuid, error)

    def accept(self, record: TaskRecord, job_id: int, warnings: Sequence[str]) -> list[str]:
        try:
            self._store.accept(record, job_id, JobState.PENDING, self._store.now(), warnings)
        except StoreUnavailable as error:
            logger.warning("job %s of task %s runs, but is not recorded yet: %s", job_id, record.uuid, error)
            self._unrecorded.append((record, job_id, tuple(warnings)))
            return ["the database did not answer; the record will be completed as soon as it does"]
        return []

    def record_late(self) -> None:
        """Complete the records of jobs that the store could not keep at the time.

        Raises:
            StoreUnavailable: The store still does not answer.
        """
        for _ in range(len(self._unrecorded)):
            record, job_id, warnings = self._unrecorded[0]
            self._store.accept(record, job_id, JobState.PENDING, self._store.now(), warnings)
            logger.info("job %s of task %s is recorded now", job_id, record.uuid)
            self._unrecorded.popleft()


def _taken(record: TaskRecord, first: TaskRecord | None) -> DuplicateUuid:
    """Another user's job is not told of."""
    is_his = first is not None and first.slurm_username == record.slurm_username
    return DuplicateUuid(record.uuid, first.slurm_job_id if first is not None and is_his else None)


def stored_key(caller: str, key: str) -> str:
    """Return a caller's idempotency key as it is stored: the caller's name, a blank, the key.

    A blank in the name is escaped, so that the first blank ends the name.
    """
    return f"{caller.replace('%', '%25').replace(' ', '%20')} {key}"


def first_answer(record: TaskRecord, job_id: int, warnings: Sequence[str]) -> dict[str, Any]:
    answer = {"uuid": record.uuid, "slurm_job_id": job_id, "slurm_job_state": JobState.PENDING}
    return {**answer, "warnings": list(warnings)} if warnings else answer


def _canonical(task: Mapping[str, Any]) -> str:
    """Equal for equal tasks only: to Python, true and 1 and 1.0 are equal, too."""
    return json.dumps(task, sort_keys=True)


def cannot_be_told(uuid: str) -> SlurmAmbiguous:
    return SlurmAmbiguous(
        f"it cannot be told yet whether Slurm took task {uuid}; GET /monitor/task_uuid/{uuid} will tell, "
        "do not submit it under another uuid before"
    )
