"""Keeps what a look at Slurm has brought: states, facts and messages, each record in one atomic write."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from app.errors import RecordUnfit
from app.job_state import JobState
from app.lifecycle.older_records import is_too_old_to_announce
from app.messages.plan import Plan, Planner
from app.models.array_merging import require_all_array_tasks
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, OpenJob, RecordKind, TaskRecord
from app.models.slurm_options import array_size
from app.store import TaskStore

logger = logging.getLogger(__name__)

_BATCH_SIZE = 1000  # records; the store reads and writes so many well within its time-out

News = tuple[OpenJob, SlurmJob]


class Recorder:
    """What cannot be read, planned or kept as it is never hides the rest."""

    def __init__(self, store: TaskStore, planner: Planner) -> None:
        self._store = store
        self._planner = planner

    def keep(self, news: Sequence[News], now: datetime, fence: int) -> int:
        """Store the changes with the messages that become due, and return how many records changed."""
        batches = (news[begin : begin + _BATCH_SIZE] for begin in range(0, len(news), _BATCH_SIZE))
        return sum(self._keep_batch(batch, now, fence) for batch in batches)

    def _keep_batch(self, news: Sequence[News], now: datetime, fence: int) -> int:
        changes = [self._change(item, now) for item in self._loaded(news)]
        applied = self._written(changes, fence)
        if applied != len(changes):
            logger.warning("%d of %d changes were applied: another leads, or led", applied, len(changes))
            return applied
        for change in changes:
            if change.before is not change.after:
                logger.info("task %s: %s -> %s", change.uuid, change.before, change.after)
        return applied

    def _written(self, changes: Sequence[Change], fence: int) -> int:
        """All in one write; one that cannot be kept as it is goes without its messages."""
        try:
            return self._store.apply(changes, fence)
        except RecordUnfit as error:
            logger.warning("one of %d changes: %s", len(changes), error)
        return sum(self._written_alone(change, fence) for change in changes)

    def _written_alone(self, change: Change, fence: int) -> int:
        try:
            return self._store.apply([change], fence)
        except RecordUnfit:
            logger.warning("the messages about task %s are too large to be kept", change.uuid)
            dead = tuple(map(_dead, change.notifications))
            return self._store.apply([replace(change, notifications=dead)], fence)

    def _loaded(self, news: Sequence[News]) -> list[tuple[OpenJob, SlurmJob, TaskRecord | None]]:
        """The whole records; None for one that cannot be read, so that it does not hide the others."""
        try:
            records = self._store.by_uuids([record.uuid for record, _ in news])
        except ValueError:
            records = {}
            for record, _ in news:
                records |= self._loaded_alone(record.uuid)
        return [(record, job, records.get(record.uuid)) for record, job in news]

    def _loaded_alone(self, uuid: str) -> dict[str, TaskRecord]:
        try:
            return self._store.by_uuids([uuid])
        except ValueError:
            logger.exception("the record of task %s cannot be read", uuid)
            return {}

    def _change(self, news: tuple[OpenJob, SlurmJob, TaskRecord | None], now: datetime) -> Change:
        record, job, whole = news
        job = _with_known_restarts(_require_all_array_tasks(job, whole), whole)
        is_told = whole is not None and not is_too_old_to_announce(whole, job)
        plan = plan_of(self._planner, whole, job, now) if whole and is_told else Plan((), None)
        return Change(
            uuid=record.uuid,
            before=record.slurm_job_state,
            after=job.job_state,
            at=now,
            job=None if job.job_state is JobState.UNKNOWN else job,
            notifications=plan.notifications,
            alarm_at=plan.alarm_at,
        )


def plan_of(planner: Planner, record: TaskRecord, job: SlurmJob, now: datetime) -> Plan:
    """Return what is due by a look at the job; nothing for a task that cannot be understood."""
    try:
        return planner.at_look(record, job, now)
    except Exception:
        logger.exception("task %s: what is due cannot be told", record.uuid)
        return Plan((), None)


def _dead(item: Notification) -> Notification:
    """Seen to be lost, at least."""
    return item.model_copy(
        update={
            "status": NotificationStatus.DEAD,
            "attempt_after": None,
            "last_error": "it was too large to be kept",
            "content": None,
            "params": {"recipient": item.params.get("recipient")},
        }
    )


def _with_known_restarts(job: SlurmJob, record: TaskRecord | None) -> SlurmJob:
    """Return the job with at least the restarts that were seen before: slurmdbd does not count them."""
    known = record.job.restarts if record is not None and record.job is not None else 0
    return job if job.restarts >= known else job.model_copy(update={"restarts": known})


def _require_all_array_tasks(job: SlurmJob, record: TaskRecord | None) -> SlurmJob:
    """Return the job as UNKNOWN if it succeeded, but Slurm does not show all tasks of the record's array."""
    if record is None or record.kind is not RecordKind.SUBMITTED:
        return job  # the task of a registered job may hold anything
    options = record.task.get("slurm")
    spec = options.get("array") if isinstance(options, dict) else None
    expected = array_size(spec) if isinstance(spec, str) else None
    return job if expected is None else require_all_array_tasks(job, expected)
