"""Follows the open jobs: one look at Slurm, and what it changes in the records."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.ended_jobs import POLL_INTERVAL, EndedJobs, array_ids
from app.lifecycle.job_identity import is_same_job
from app.lifecycle.record_changes import News, Recorder
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import OpenJob
from app.outages import RepeatFilter
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_FIGURES_WITHIN = timedelta(seconds=10)  # slurmdbd hears of an end a little after slurmctld
_AWAY: Mapping[int, SlurmJob] = {}


class Watcher:
    """What the leading monitor does in a cycle. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        unknown_after: timedelta,
        ended_interval: timedelta = POLL_INTERVAL,
    ) -> None:
        self._store = store
        self._ended = EndedJobs(store, ended_interval)
        self._slurm = slurm
        self._recorder = Recorder(store, planner)
        self._unknown_after = unknown_after
        self._missing_since: dict[str, datetime] = {}
        self._ended_since: dict[str, datetime] = {}
        self.slurm_seconds = 0.0  # that the last look took Slurm

    def refresh(self, now: datetime, fence: int) -> int:
        """Poll Slurm once and update the records; return how many changed.

        Raises:
            SlurmUnavailable: Slurm does not answer; nothing was changed.
            SlurmMisbehaved: An answer of slurmrestd cannot be used; nothing was changed.
        """
        self.slurm_seconds = 0.0
        open_jobs = self._store.open_jobs()
        ended_jobs = self._ended.due(now)
        with self._asking():
            seen = self._slurm.poll(_known([*open_jobs, *ended_jobs]), array_ids(ended_jobs))
        changed: list[News] = []
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
        news = [(record, job) for record, job in news if _is_news(record, job)]
        applied = self._recorder.keep([*news, *self._restarted(ended_jobs, seen)], now, fence)
        return applied + self._recorder.keep(self._alarms(open_jobs, seen, now), now, fence)

    def _restarted(self, ended_jobs: Iterable[OpenJob], seen: Mapping[int, SlurmJob | None]) -> list[News]:
        """Return the ended jobs that are active again; stop polling those and the forgotten ones as ended."""
        news = [(record, seen[record.slurm_job_id]) for record in ended_jobs if record.slurm_job_id in seen]
        self._ended.forget(record.uuid for record, _ in news)
        return [(record, job) for record, job in news if job is not None and is_same_job(record, job)]

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

    def _with_figures(self, news: list[News], now: datetime) -> list[News]:
        """Add slurmdbd's figures to the jobs that have just ended.

        A job that slurmdbd does not have yet is left for a later cycle, for a short while. An array waits as
        long as a job that slurmctld has forgotten, because only slurmdbd knows all its tasks.
        """
        ended = {record.uuid: job.job_id for record, job in news if job.job_state.is_final}
        self._ended_since = {uuid: self._ended_since.get(uuid, now) for uuid in ended}
        accounted = self._accounted([record for record, _ in news if record.uuid in ended])
        if accounted is None:
            return news
        if accounted is _AWAY:  # what slurmctld still knows of an array need not be all of it
            self._ended_since = dict.fromkeys(ended, now)
            return [
                (record, job)
                for record, job in news
                if not job.job_state.is_final or not job.array_task_count
            ]
        ready: list[News] = []
        for record, job in news:
            measured = accounted.get(job.job_id)
            patience = self._unknown_after if job.array_task_count else _FIGURES_WITHIN
            is_late = record.uuid not in ended or now - self._ended_since[record.uuid] >= patience
            if measured is None or not _is_same_run(record, measured):
                ready += [(record, job)] * is_late
            elif measured.job_state.is_final and measured.array_task_count >= job.array_task_count:
                ready.append((record, _measured(job, measured)))
            elif is_late:
                ready.append((record, job))
        return ready

    def _accounted(self, records: Sequence[OpenJob]) -> Mapping[int, SlurmJob] | None:
        """None where there are no figures to be had, _AWAY where there are none now."""
        if not records:
            return None
        try:
            with self._asking():
                earliest = _earliest_submissions(records)
                return self._slurm.accounting(earliest.keys(), not_before=earliest)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("%d jobs have ended, without figures: %s", len(records), error)
            return _AWAY

    def _alarms(
        self, open_jobs: Iterable[OpenJob], seen: Mapping[int, SlurmJob | None], now: datetime
    ) -> list[News]:
        """Return the jobs for which an event may be due although the list of states shows no change.

        The list may show an array as waiting that has begun. An end is left to the next cycle.
        """
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
            if job is not None and is_same_job(record, job) and not job.job_state.is_final
        ]

    def _traced(
        self, lost: list[OpenJob], seen: Mapping[int, SlurmJob | None], now: datetime
    ) -> Iterable[News]:
        """Yield jobs that slurmctld has forgotten, with their end from slurmdbd, or UNKNOWN after a while."""
        if not lost:
            return
        try:
            with self._asking():
                earliest = _earliest_submissions(lost)
                accounted = self._slurm.accounting(earliest.keys(), not_before=earliest)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("%d jobs have left slurmctld, and %s", len(lost), error)
            return
        for record in lost:
            job = (accounted or {}).get(record.slurm_job_id)
            other = seen.get(record.slurm_job_id)  # which has the id now: slurmdbd may mean that one
            is_other = job is not None and other is not None and job.submit_time == other.submit_time
            if job is not None and job.job_state.is_final and not is_other and _is_same_run(record, job):
                yield record, job
            elif now - self._missing_since.setdefault(record.uuid, now) >= self._unknown_after:
                yield record, _unknown(record)


def _is_same_run(record: OpenJob, job: SlurmJob) -> bool:
    """Return whether slurmdbd describes the current run of the record's job, not one before a requeue."""
    if (
        record.submit_time is not None
        and job.submit_time is not None
        and job.submit_time < record.submit_time
    ):
        return False
    return is_same_job(record, job)


def _measured(job: SlurmJob, accounted: SlurmJob) -> SlurmJob:
    """Return the job with slurmdbd's figures, and with its end as slurmctld reports it.

    slurmdbd of 22.05 reports wrong exit codes. But slurmctld forgets the tasks of an array one by one, and
    slurmdbd has them all.
    """
    figures = {"max_memory_bytes": accounted.max_memory_bytes, "cpu_seconds": accounted.cpu_seconds}
    base = accounted if accounted.array_task_count > job.array_task_count else job
    files = {"standard_output": job.standard_output, "standard_error": job.standard_error}
    files = {} if base.standard_output else files  # slurmdbd of 22.05 knows none
    known = {**figures, **files, "comment": job.comment, "name": job.name or accounted.name}
    return base.model_copy(update=known)


def _earliest_submissions(records: Iterable[OpenJob]) -> dict[int, datetime]:
    """Return by job id the time before which no task of the job can have been submitted."""
    earliest: dict[int, datetime] = {}
    for record in records:
        at = record.earliest_submission
        earliest[record.slurm_job_id] = min(at, earliest.get(record.slurm_job_id, at))
    return earliest


def _known(open_jobs: Iterable[OpenJob]) -> dict[int, JobState]:
    """The last known state of each job; where two records differ about one, both are due for news."""
    known: dict[int, JobState] = {}
    for record in open_jobs:
        state = known.setdefault(record.slurm_job_id, record.slurm_job_state)
        if state is not record.slurm_job_state:
            known[record.slurm_job_id] = JobState.UNKNOWN
    return known


def _is_news(record: OpenJob, job: SlurmJob) -> bool:
    """Return whether the job changes an open record.

    A record that was taken over may be open in the state UNKNOWN; then UNKNOWN is a change, which closes it.
    """
    return job.job_state is not record.slurm_job_state or job.job_state is JobState.UNKNOWN


def _unknown(record: OpenJob) -> SlurmJob:
    return SlurmJob(job_id=record.slurm_job_id, username=record.slurm_username, job_state=JobState.UNKNOWN)
