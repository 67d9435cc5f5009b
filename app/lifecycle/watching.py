"""Follows the open jobs: one look at Slurm, and what it changes in the records."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.identity import is_same_job
from app.models.job import SlurmJob
from app.models.record import Change, OpenJob, TaskRecord
from app.notification_plan import Catalogue, end_notifications
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)


class Watcher:
    """What the leading monitor does in a cycle. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        catalogue: Catalogue,
        *,
        unknown_after: timedelta,
    ) -> None:
        self._store = store
        self._slurm = slurm
        self._catalogue = catalogue
        self._unknown_after = unknown_after
        self._missing_since: dict[str, datetime] = {}

    def refresh(self, now: datetime, fence: int) -> int:
        """Brings the open records up to what Slurm says; returns how many changed.

        SlurmUnavailable, SlurmMisbehaved: nothing is known, nothing was changed.
        """
        open_jobs = self._store.open_jobs()
        seen = self._slurm.poll(_known(open_jobs))
        changed: list[tuple[OpenJob, SlurmJob]] = []
        lost: list[OpenJob] = []
        for record in open_jobs:
            job = seen.get(record.slurm_job_id)
            if job is not None and is_same_job(record, job):
                changed.append((record, job))
            elif record.slurm_job_id in seen:
                lost.append(record)
        missing = {record.uuid for record in lost}
        self._missing_since = {uuid: at for uuid, at in self._missing_since.items() if uuid in missing}
        return self._apply([*changed, *self._traced(lost, now)], now, fence)

    def _traced(self, lost: list[OpenJob], now: datetime) -> Iterable[tuple[OpenJob, SlurmJob]]:
        """Jobs that slurmctld has forgotten, as slurmdbd ended them; UNKNOWN after a while if it cannot."""
        if not lost:
            return
        try:
            accounted = self._slurm.accounting({record.slurm_job_id for record in lost})
        except SlurmUnavailable as error:
            logger.warning("%d jobs have left slurmctld, and %s", len(lost), error)
            return
        for record in lost:
            job = accounted.get(record.slurm_job_id)
            if job is not None and job.job_state.is_final and is_same_job(record, job):
                yield record, job
            elif now - self._missing_since.setdefault(record.uuid, now) >= self._unknown_after:
                yield record, _unknown(record)

    def _apply(self, news: Iterable[tuple[OpenJob, SlurmJob]], now: datetime, fence: int) -> int:
        news = [(record, job) for record, job in news if job.job_state is not record.slurm_job_state]
        if not news:
            return 0
        ended = self._store.by_uuids([record.uuid for record, job in news if job.job_state.is_settled])
        changes = [self._change(record, job, ended, now) for record, job in news]
        applied = self._store.apply(changes, fence)
        if applied == len(changes):
            for change in changes:
                logger.info("task %s: %s -> %s", change.uuid, change.before, change.after)
        else:
            logger.warning("%d of %d changes were applied: another leads, or led", applied, len(changes))
        return applied

    def _change(
        self, record: OpenJob, job: SlurmJob, ended: Mapping[str, TaskRecord], now: datetime
    ) -> Change:
        whole = ended.get(record.uuid)
        is_known = job.job_state is not JobState.UNKNOWN
        return Change(
            uuid=record.uuid,
            before=record.slurm_job_state,
            after=job.job_state,
            at=now,
            job=job if is_known else None,
            notifications=end_notifications(self._catalogue, whole, job, now) if whole else (),
        )


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
