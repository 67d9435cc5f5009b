"""Follows the open jobs: one look at Slurm, and what it changes in the records."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

from app.errors import RecordUnfit, SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.identity import is_same_job
from app.messages.plan import Plan, Planner
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, OpenJob, TaskRecord
from app.models.slurm_options import array_size
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)

_FIGURES_WITHIN = timedelta(seconds=10)  # slurmdbd hears of an end a little after slurmctld
_AWAY: Mapping[int, SlurmJob] = {}
_News = tuple[OpenJob, SlurmJob]


class Watcher:
    """What the leading monitor does in a cycle. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        unknown_after: timedelta,
    ) -> None:
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._unknown_after = unknown_after
        self._missing_since: dict[str, datetime] = {}
        self._ended_since: dict[str, datetime] = {}
        self.slurm_seconds = 0.0  # that the last look took Slurm

    def refresh(self, now: datetime, fence: int) -> int:
        """Brings the open records up to what Slurm says; returns how many changed.

        SlurmUnavailable, SlurmMisbehaved: nothing is known, nothing was changed.
        """
        self.slurm_seconds = 0.0
        open_jobs = self._store.open_jobs()
        with self._asking():
            seen = self._slurm.poll(_known(open_jobs))
        changed: list[_News] = []
        lost: list[OpenJob] = []
        for record in open_jobs:
            job = seen.get(record.slurm_job_id)
            if job is not None and is_same_job(record, job):
                changed.append((record, job))
            elif record.slurm_job_id in seen:
                lost.append(record)
        missing = {record.uuid for record in lost}
        self._missing_since = {uuid: at for uuid, at in self._missing_since.items() if uuid in missing}
        news = [*self._with_figures(changed, now), *self._traced(lost, seen, now)]
        news = [(record, job) for record, job in news if job.job_state is not record.slurm_job_state]
        applied = self._apply(news, now, fence)
        return applied + self._apply(self._alarms(open_jobs, seen, now), now, fence)

    def probe(self) -> None:
        """Finds out whether Slurm is back, and which version it speaks, before anybody has to wait for it."""
        with suppress(SlurmUnavailable, SlurmMisbehaved):
            self._slurm.prepare()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.slurm_seconds += time.monotonic() - began

    def _with_figures(self, news: list[_News], now: datetime) -> list[_News]:
        """Adds what slurmdbd measured to the jobs that have just ended; one that it does not have yet is
        left for a later cycle, if not for long."""
        ended = {record.uuid: job.job_id for record, job in news if job.job_state.is_final}
        self._ended_since = {uuid: self._ended_since.get(uuid, now) for uuid in ended}
        accounted = self._accounted(set(ended.values()))
        if accounted is None:
            return news
        if accounted is _AWAY:  # what slurmctld still knows of an array need not be all of it
            return [(record, job) for record, job in news if not job.job_state.is_final or not _tasks(job)]
        ready: list[_News] = []
        for record, job in news:
            measured = accounted.get(job.job_id)
            is_late = record.uuid not in ended or now - self._ended_since[record.uuid] >= _FIGURES_WITHIN
            if measured is None or not is_same_job(record, measured):
                ready += [(record, job)] * is_late
            elif measured.job_state.is_final and _tasks(measured) >= _tasks(job):
                ready.append((record, _measured(job, measured)))
            elif is_late:
                ready.append((record, job))
        return ready

    def _accounted(self, job_ids: set[int]) -> Mapping[int, SlurmJob] | None:
        """None where there are no figures to be had, _AWAY where there are none now."""
        if not job_ids:
            return None
        try:
            with self._asking():
                return self._slurm.accounting(job_ids)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("%d jobs have ended, without figures: %s", len(job_ids), error)
            return _AWAY

    def _alarms(
        self, open_jobs: Iterable[OpenJob], seen: Mapping[int, SlurmJob | None], now: datetime
    ) -> list[_News]:
        """Jobs of which there may be something to tell although their state has not changed."""
        due = [
            record
            for record in open_jobs
            if record.alarm_at is not None and record.alarm_at <= now and record.slurm_job_id not in seen
        ]
        if not due:
            return []
        with self._asking():
            looked = self._slurm.look([record.slurm_job_id for record in due])
        found = [(record, looked.get(record.slurm_job_id)) for record in due]
        return [
            (record, job)
            for record, job in found
            if job is not None and is_same_job(record, job) and job.job_state is record.slurm_job_state
        ]

    def _traced(
        self, lost: list[OpenJob], seen: Mapping[int, SlurmJob | None], now: datetime
    ) -> Iterable[_News]:
        """Jobs that slurmctld has forgotten, as slurmdbd ended them; UNKNOWN after a while if it cannot."""
        if not lost:
            return
        try:
            with self._asking():
                accounted = self._slurm.accounting({record.slurm_job_id for record in lost})
        except SlurmUnavailable as error:
            logger.warning("%d jobs have left slurmctld, and %s", len(lost), error)
            return
        for record in lost:
            job = (accounted or {}).get(record.slurm_job_id)
            other = seen.get(record.slurm_job_id)  # which has the id now: slurmdbd may mean that one
            is_other = job is not None and other is not None and job.submit_time == other.submit_time
            if job is not None and job.job_state.is_final and not is_other and is_same_job(record, job):
                yield record, job
            elif now - self._missing_since.setdefault(record.uuid, now) >= self._unknown_after:
                yield record, _unknown(record)

    def _apply(self, news: list[_News], now: datetime, fence: int) -> int:
        if not news:
            return 0
        changes = [self._change(item, now) for item in self._loaded(news)]
        applied = self._keep(changes, fence)
        if applied != len(changes):
            logger.warning("%d of %d changes were applied: another leads, or led", applied, len(changes))
            return applied
        for change in changes:
            if change.before is not change.after:
                logger.info("task %s: %s -> %s", change.uuid, change.before, change.after)
        return applied

    def _keep(self, changes: Sequence[Change], fence: int) -> int:
        """All in one write; one that cannot be kept as it is goes without its messages."""
        try:
            return self._store.apply(changes, fence)
        except RecordUnfit as error:
            logger.warning("one of %d changes: %s", len(changes), error)
        return sum(self._keep_alone(change, fence) for change in changes)

    def _keep_alone(self, change: Change, fence: int) -> int:
        try:
            return self._store.apply([change], fence)
        except RecordUnfit:
            logger.warning("the messages about task %s are too large to be kept", change.uuid)
            dead = tuple(map(_dead, change.notifications))
            return self._store.apply([replace(change, notifications=dead)], fence)

    def _loaded(self, news: list[_News]) -> list[tuple[OpenJob, SlurmJob, TaskRecord | None]]:
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
        job = _never_too_good(job, whole)
        plan = self._plan(whole, job, now) if whole else Plan((), None)
        return Change(
            uuid=record.uuid,
            before=record.slurm_job_state,
            after=job.job_state,
            at=now,
            job=None if job.job_state is JobState.UNKNOWN else job,
            notifications=plan.notifications,
            alarm_at=plan.alarm_at,
        )

    def _plan(self, record: TaskRecord, job: SlurmJob, now: datetime) -> Plan:
        """One task that nobody can make sense of must not keep the others from their ends."""
        try:
            return self._planner.at_look(record, job, now)
        except Exception:
            logger.exception("task %s: what is due cannot be told", record.uuid)
            return Plan((), None)


def _measured(job: SlurmJob, accounted: SlurmJob) -> SlurmJob:
    """slurmctld's word on how it ended: slurmdbd of 22.05 gets exit codes wrong.

    Of an array slurmctld forgets the tasks one by one; slurmdbd has them all.
    """
    figures = {"max_memory_bytes": accounted.max_memory_bytes, "cpu_seconds": accounted.cpu_seconds}
    base = accounted if _tasks(accounted) > _tasks(job) else job
    return base.model_copy(update={**figures, "comment": job.comment, "name": job.name or accounted.name})


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


def _tasks(job: SlurmJob) -> int:
    """How many tasks of an array it stands for; 0 for a job that is none."""
    return sum((job.array_tasks or {}).values())


def _never_too_good(job: SlurmJob, record: TaskRecord | None) -> SlurmJob:
    """An array has only succeeded if each of its tasks has: not if some are no longer known."""
    spec = ((record.task.get("slurm") or {}) if record else {}).get("array")
    wanted = array_size(spec) if isinstance(spec, str) else None
    if wanted is None or not job.job_state.is_success or _tasks(job) >= wanted:
        return job
    return job.model_copy(update={"job_state": JobState.UNKNOWN, "exit_code": None})


def _known(open_jobs: Iterable[OpenJob]) -> dict[int, JobState]:
    """The last known state of each job; where two records differ about one, both are due for news."""
    known: dict[int, JobState] = {}
    for record in open_jobs:
        state = known.setdefault(record.slurm_job_id, record.slurm_job_state)
        if state is not record.slurm_job_state:
            known[record.slurm_job_id] = JobState.UNKNOWN
    return known


def _unknown(record: OpenJob) -> SlurmJob:
    return SlurmJob(job_id=record.slurm_job_id, username=record.slurm_username, job_state=JobState.UNKNOWN)
