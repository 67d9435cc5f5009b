"""Follows the open jobs: one look at Slurm, and what it changes in the records."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.identity import is_same_job
from app.messages.plan import Plan, Planner
from app.models.job import SlurmJob
from app.models.record import Change, OpenJob, TaskRecord
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)

_FIGURES_WITHIN = timedelta(seconds=10)  # slurmdbd hears of an end a little after slurmctld
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

    def refresh(self, now: datetime, fence: int) -> int:
        """Brings the open records up to what Slurm says; returns how many changed.

        SlurmUnavailable, SlurmMisbehaved: nothing is known, nothing was changed.
        """
        open_jobs = self._store.open_jobs()
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
        return self._apply([*news, *self._alarms(open_jobs, seen, now)], now, fence)

    def _with_figures(self, news: list[_News], now: datetime) -> list[_News]:
        """Adds what slurmdbd measured to the jobs that have just ended; one that it does not have yet is
        left for a later cycle, if not for long."""
        ended = {record.uuid: job.job_id for record, job in news if job.job_state.is_final}
        self._ended_since = {uuid: self._ended_since.get(uuid, now) for uuid in ended}
        accounted = self._accounted(set(ended.values()))
        if accounted is None:
            return news
        ready: list[_News] = []
        for record, job in news:
            measured = accounted.get(job.job_id)
            if measured is not None and measured.job_state.is_final and is_same_job(record, measured):
                ready.append((record, _measured(job, measured)))
            elif record.uuid not in ended or now - self._ended_since[record.uuid] >= _FIGURES_WITHIN:
                ready.append((record, job))
        return ready

    def _accounted(self, job_ids: set[int]) -> Mapping[int, SlurmJob] | None:
        """None where there are no figures to be had, now or at all."""
        if not job_ids:
            return None
        try:
            return self._slurm.accounting(job_ids)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("%d jobs have ended, without figures: %s", len(job_ids), error)
            return None

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
        records = self._store.by_uuids([record.uuid for record, _ in news])
        changes = [
            self._change(record, job, records[record.uuid], now)
            for record, job in news
            if record.uuid in records
        ]
        applied = self._store.apply(changes, fence)
        if applied != len(changes):
            logger.warning("%d of %d changes were applied: another leads, or led", applied, len(changes))
            return applied
        for change in changes:
            if change.before is not change.after:
                logger.info("task %s: %s -> %s", change.uuid, change.before, change.after)
        return applied

    def _change(self, record: OpenJob, job: SlurmJob, whole: TaskRecord, now: datetime) -> Change:
        plan: Plan = self._planner.at_look(whole, job, now)
        return Change(
            uuid=record.uuid,
            before=record.slurm_job_state,
            after=job.job_state,
            at=now,
            job=None if job.job_state is JobState.UNKNOWN else job,
            notifications=plan.notifications,
            alarm_at=plan.alarm_at,
        )


def _measured(job: SlurmJob, accounted: SlurmJob) -> SlurmJob:
    """slurmctld's word on how it ended: slurmdbd of 22.05 gets exit codes wrong."""
    figures = {"max_memory_bytes": accounted.max_memory_bytes, "cpu_seconds": accounted.cpu_seconds}
    return job.model_copy(update=figures)


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
