"""Write the changes that Slurm reports: state, facts and due messages, each record in one atomic write."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from app.errors import RecordTooLarge
from app.job_state import JobState
from app.lifecycle.taken_over_records import is_too_old_to_announce
from app.messages.plan import Plan, Planner
from app.models.array_indices import count_array_tasks
from app.models.array_merging import require_all_array_tasks
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, OpenJob, RecordKind, TaskRecord
from app.senders import find_channel
from app.store.records import RecordStore

logger = logging.getLogger(__name__)

_BATCH_SIZE = 1000  # records; the store reads and writes so many well within its time-out


class Observation(NamedTuple):
    """A job as Slurm reports it, with its open record."""

    open_job: OpenJob
    job: SlurmJob


class ChangeWriter:
    """Writer of the changes that Slurm reports. One record with bad data never hides the others."""

    def __init__(self, store: RecordStore, planner: Planner) -> None:
        """Create a writer of changes to `store`."""
        self._store = store
        self._planner = planner

    def apply(self, observations: Sequence[Observation], now: datetime, fence: int) -> int:
        """Store the changes with the messages that become due; return how many records changed.

        Args:
            observations: The jobs whose records change.
            now: The store's time.
            fence: The fencing token of the lease; a leader with a newer one prevents the write.

        Raises:
            StoreUnavailable: The store does not answer; an earlier batch may have been stored.
        """
        starts = range(0, len(observations), _BATCH_SIZE)
        return sum(self._apply_batch(observations[i : i + _BATCH_SIZE], now, fence) for i in starts)

    def _apply_batch(self, observations: Sequence[Observation], now: datetime, fence: int) -> int:
        records = self._load(observations)
        changes = [self._change(item, records.get(item.open_job.uuid), now) for item in observations]
        applied = self._write(changes, fence)
        if applied != len(changes):
            logger.warning(
                "%d of %d changes were applied: another process leads, or has led since",
                applied,
                len(changes),
            )
            return applied
        for change in changes:
            if change.before is not change.after:
                logger.info("task %s: %s -> %s", change.uuid, change.before, change.after)
        return applied

    def _write(self, changes: Sequence[Change], fence: int) -> int:
        """Store all changes in one write; if one is too large, store each alone."""
        try:
            return self._store.apply_changes(changes, fence)
        except RecordTooLarge as error:
            logger.warning("one of %d changes: %s", len(changes), error)
        return sum(self._write_one(change, fence) for change in changes)

    def _write_one(self, change: Change, fence: int) -> int:
        try:
            return self._store.apply_changes([change], fence)
        except RecordTooLarge:
            logger.warning("the messages about task %s are too large to be stored", change.uuid)
            dead = tuple(map(_without_content, change.notifications))
            return self._store.apply_changes([replace(change, notifications=dead)], fence)

    def _load(self, observations: Sequence[Observation]) -> dict[str, TaskRecord]:
        """Return the records by uuid, without those that cannot be read."""
        uuids = [item.open_job.uuid for item in observations]
        try:
            return self._store.find_by_uuids(uuids)
        except ValueError:
            return {uuid: record for uuid in uuids if (record := self._load_one(uuid)) is not None}

    def _load_one(self, uuid: str) -> TaskRecord | None:
        try:
            return self._store.find_by_uuids([uuid]).get(uuid)
        except ValueError:
            logger.exception("the record of task %s cannot be read", uuid)
            return None

    def _change(self, observation: Observation, record: TaskRecord | None, now: datetime) -> Change:
        job = _with_known_restarts(_require_all_array_tasks(observation.job, record), record)
        is_announced = record is not None and not is_too_old_to_announce(record, job)
        plan = plan_or_nothing(self._planner, record, job, now) if record and is_announced else Plan((), None)
        return Change(
            uuid=observation.open_job.uuid,
            before=observation.open_job.slurm_job_state,
            after=job.job_state,
            at=now,
            job=None if job.job_state is JobState.UNKNOWN else job,
            notifications=plan.notifications,
            alarm_at=plan.alarm_at,
        )


def plan_or_nothing(planner: Planner, record: TaskRecord, job: SlurmJob, now: datetime) -> Plan:
    """Return the plan for this description of the job; an empty one for a task that cannot be read."""
    try:
        return planner.plan_events(record, job, now)
    except Exception:
        logger.exception("task %s: the notifications that are due cannot be computed", record.uuid)
        return Plan((), None)


def _without_content(item: Notification) -> Notification:
    """Return the notification as dead and without its content, so that at least its loss is visible."""
    return item.model_copy(
        update={
            "status": NotificationStatus.DEAD,
            "attempt_after": None,
            "last_error": "it was too large to be stored",
            "content": None,
            "params": find_channel(item.method).address_params(item.params),
        }
    )


def _with_known_restarts(job: SlurmJob, record: TaskRecord | None) -> SlurmJob:
    """Return the job with at least the restarts of the record, because slurmdbd does not count restarts."""
    known = record.job.restarts if record is not None and record.job is not None else 0
    return job if job.restarts >= known else job.model_copy(update={"restarts": known})


def _require_all_array_tasks(job: SlurmJob, record: TaskRecord | None) -> SlurmJob:
    """Return an array that succeeded as UNKNOWN if Slurm does not show all its tasks any more."""
    if record is None or record.kind is not RecordKind.SUBMITTED:
        return job  # the task of a registered job may hold anything
    options = record.full_task.get("slurm")
    spec = options.get("array") if isinstance(options, dict) else None
    expected = count_array_tasks(spec) if isinstance(spec, str) else None
    return job if expected is None else require_all_array_tasks(job, expected)
