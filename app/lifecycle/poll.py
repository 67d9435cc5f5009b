"""Poll Slurm once for the states of all open jobs, and update their records."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum, auto

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.complete_poll import CompletePoll
from app.lifecycle.ended_jobs import POLL_INTERVAL, EndedJobs, list_array_ids
from app.lifecycle.job_accounting import find_earliest_submissions, is_same_run, merge_accounting
from app.lifecycle.job_identity import is_same_job
from app.lifecycle.record_changes import ChangeWriter, Observation
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import OpenJob
from app.outages import RepeatFilter
from app.slurm.client import SlurmClient
from app.store.records import RecordStore

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

# slurmdbd hears of an end a little after slurmctld.
_ACCOUNTING_DELAY = timedelta(seconds=10)


class _NoAccounting(Enum):
    """The reason why there is no accounting of jobs that have ended."""

    NOT_SET_UP = auto()  # the cluster has no slurmdbd
    NO_ANSWER = auto()  # slurmdbd does not answer now


class Poller:
    """The polling of Slurm by the leading process. Not thread-safe: for one thread."""

    def __init__(
        self,
        store: RecordStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        unknown_after: timedelta,
        ended_interval: timedelta = POLL_INTERVAL,
    ) -> None:
        """Create a poller.

        Args:
            store: The records.
            slurm: The client of the leading process.
            planner: Plans the notifications that become due.
            unknown_after: How long a job may be missing in Slurm before its record ends as UNKNOWN.
            ended_interval: How often the jobs that ended a short while ago are polled.
        """
        self._store = store
        self._ended = EndedJobs(store, ended_interval)
        self._slurm = slurm
        self._writer = ChangeWriter(store, planner)
        self._unknown_after = unknown_after
        self._missing_since: dict[str, datetime] = {}
        self._ended_since: dict[str, datetime] = {}
        self.slurm_seconds = 0.0  # for which the last poll kept Slurm busy
        self.has_changes = False  # whether the last poll found changes, also those that wait for slurmdbd
        self.last_complete: CompletePoll | None = None

    def poll_once(self, now: datetime, fence: int) -> int:
        """Poll Slurm once and update the records; return how many changed.

        Args:
            now: The store's time.
            fence: The fencing token of the lease.

        Raises:
            SlurmUnavailable: Slurm does not answer; nothing was changed.
            SlurmMisbehaved: An answer of slurmrestd cannot be used; nothing was changed.
            StoreUnavailable: The store does not answer.
        """
        began, self.has_changes = self._slurm.busy_seconds, False
        try:
            return self._poll_once(now, fence)
        finally:
            self.slurm_seconds = self._slurm.busy_seconds - began

    def _poll_once(self, now: datetime, fence: int) -> int:
        open_jobs = self._store.list_open_jobs()
        ended_jobs = self._ended.list_due(now)
        reported = self._slurm.poll(_known_states([*open_jobs, *ended_jobs]), list_array_ids(ended_jobs))
        changed: list[Observation] = []
        missing: list[OpenJob] = []
        for record in open_jobs:
            job = reported.get(record.slurm_job_id)
            if job is not None and is_same_job(record, job):
                changed.append(Observation(record, job))
            elif record.slurm_job_id in reported:
                missing.append(record)
        self.has_changes = bool(changed)
        found = [*self._with_accounting(changed, now), *self._resolve_missing(missing, reported, now)]
        found = [item for item in found if _is_record_change(item)]
        found += self._find_restarted(ended_jobs, reported)
        applied = self._writer.apply(found, now, fence)
        if applied == len(found):
            behind = self._list_behind([*(item.open_job for item in changed), *missing], found)
            self.last_complete = CompletePoll.make(now, open_jobs, behind) or self.last_complete
        return applied + self._writer.apply(self._check_events(open_jobs, reported, now), now, fence)

    def _list_behind(self, changed: Iterable[OpenJob], recorded: Iterable[Observation]) -> frozenset[int]:
        """Return the ids of the jobs whose state is not known, or changed and is not recorded yet."""
        uuids = {item.open_job.uuid for item in recorded}
        return self._slurm.unread_jobs.union(job.slurm_job_id for job in changed if job.uuid not in uuids)

    def probe(self) -> None:
        """Find out whether Slurm is back, and its API version, before a caller has to wait."""
        with suppress(SlurmUnavailable, SlurmMisbehaved):
            self._slurm.discover_dialect()

    def _find_restarted(
        self, ended_jobs: Iterable[OpenJob], reported: Mapping[int, SlurmJob | None]
    ) -> list[Observation]:
        """Return the ended jobs that are active again; stop polling these and the forgotten jobs as ended."""
        found = [record for record in ended_jobs if record.slurm_job_id in reported]
        self._ended.forget(record.uuid for record in found)
        return _same_jobs(found, reported)

    def _with_accounting(self, changed: list[Observation], now: datetime) -> list[Observation]:
        """Add the accounting to the jobs that have just ended.

        A job that slurmdbd does not have yet is left for a later cycle, for a short while. An array waits as
        long as a job that slurmctld has forgotten, because only slurmdbd knows all its tasks.
        """
        ended = [item for item in changed if item.job.job_state.is_final]
        self._ended_since = {
            item.open_job.uuid: self._ended_since.get(item.open_job.uuid, now) for item in ended
        }
        accounting = self._read_accounting([item.open_job for item in ended])
        if accounting is _NoAccounting.NOT_SET_UP:
            return changed
        if accounting is _NoAccounting.NO_ANSWER:  # slurmctld may have forgotten tasks of an array
            self._ended_since = dict.fromkeys(self._ended_since, now)
            return [item for item in changed if not item.job.job_state.is_final or not item.job.array_tasks]
        return [
            ready
            for item in changed
            if (ready := self._complete(item, accounting.get(item.job.job_id), now)) is not None
        ]

    def _complete(self, item: Observation, accounted: SlurmJob | None, now: datetime) -> Observation | None:
        """Return the observation with its accounting; None while waiting for slurmdbd makes sense."""
        record, job = item
        delay = self._unknown_after if job.array_tasks else _ACCOUNTING_DELAY
        is_late = record.uuid not in self._ended_since or now - self._ended_since[record.uuid] >= delay
        is_usable = (
            accounted is not None
            and is_same_run(record, accounted)
            and accounted.job_state.is_final
            and accounted.array_task_count >= job.array_task_count
        )
        if accounted is not None and is_usable:
            return Observation(record, merge_accounting(job, accounted))
        return item if is_late else None

    def _read_accounting(self, records: Sequence[OpenJob]) -> Mapping[int, SlurmJob] | _NoAccounting:
        """Return the accounting of these jobs, by job id, or the reason for its absence."""
        if not records:
            return _NoAccounting.NOT_SET_UP
        try:
            earliest = find_earliest_submissions(records)
            accounted = self._slurm.read_accounting(earliest.keys(), not_before=earliest)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning(
                "%d jobs have ended or left slurmctld, without accounting: %s", len(records), error
            )
            return _NoAccounting.NO_ANSWER
        return _NoAccounting.NOT_SET_UP if accounted is None else accounted

    def _check_events(
        self, open_jobs: Iterable[OpenJob], reported: Mapping[int, SlurmJob | None], now: datetime
    ) -> list[Observation]:
        """Read the jobs for which an event may be due although the list of states shows no change.

        The list may show an array as waiting that has begun. An end is left to the next cycle.
        """
        due = [
            record
            for record in open_jobs
            if record.alarm_at is not None and record.alarm_at <= now and record.slurm_job_id not in reported
        ]
        if not due:
            return []
        jobs = self._slurm.read_jobs([record.slurm_job_id for record in due])
        return [item for item in _same_jobs(due, jobs) if not item.job.job_state.is_final]

    def _resolve_missing(
        self, missing: list[OpenJob], reported: Mapping[int, SlurmJob | None], now: datetime
    ) -> Iterator[Observation]:
        """Yield jobs that slurmctld has forgotten, with their end from slurmdbd, or UNKNOWN after a while."""
        uuids = {record.uuid for record in missing}
        self._missing_since = {uuid: at for uuid, at in self._missing_since.items() if uuid in uuids}
        accounting = self._read_accounting(missing)
        if accounting is _NoAccounting.NO_ANSWER:
            return
        accounted = {} if accounting is _NoAccounting.NOT_SET_UP else accounting
        for record in missing:
            job = accounted.get(record.slurm_job_id)
            # A newer job with the same id; slurmdbd may describe that one.
            other = reported.get(record.slurm_job_id)
            is_other = job is not None and other is not None and job.submit_time == other.submit_time
            if job is not None and job.job_state.is_final and not is_other and is_same_run(record, job):
                yield Observation(record, job)
            elif now - self._missing_since.setdefault(record.uuid, now) >= self._unknown_after:
                yield Observation(record, _unknown_job(record))


def _same_jobs(records: Iterable[OpenJob], jobs: Mapping[int, SlurmJob | None]) -> list[Observation]:
    """Return the records whose own job is among `jobs`, each with this job."""
    found = [(record, jobs.get(record.slurm_job_id)) for record in records]
    return [Observation(record, job) for record, job in found if job is not None and is_same_job(record, job)]


def _known_states(open_jobs: Iterable[OpenJob]) -> dict[int, JobState]:
    """Return the last known state of each job; UNKNOWN where two records of the job differ.

    A job in the state UNKNOWN is always read.
    """
    known: dict[int, JobState] = {}
    for record in open_jobs:
        state = known.setdefault(record.slurm_job_id, record.slurm_job_state)
        if state is not record.slurm_job_state:
            known[record.slurm_job_id] = JobState.UNKNOWN
    return known


def _is_record_change(observation: Observation) -> bool:
    """Return whether the job changes an open record.

    A record of the older server may be open in the state UNKNOWN; then UNKNOWN is a change, which closes it.
    """
    state = observation.job.job_state
    return state is not observation.open_job.slurm_job_state or state is JobState.UNKNOWN


def _unknown_job(record: OpenJob) -> SlurmJob:
    return SlurmJob(job_id=record.slurm_job_id, username=record.slurm_username, job_state=JobState.UNKNOWN)
