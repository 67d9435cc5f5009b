"""Poll Slurm once for the states of all open jobs, and update their records."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.complete_poll import CompletePoll
from app.lifecycle.end_reader import EndReader
from app.lifecycle.ended_jobs import POLL_INTERVAL, EndedJobs, list_array_ids
from app.lifecycle.job_identity import is_same_job
from app.lifecycle.record_changes import ChangeWriter, Observation
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import OpenJob
from app.slurm.client import SlurmClient
from app.store.records import RecordStore


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
        self._ends = EndReader(slurm, unknown_after)
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
        found = [*self._ends.add_accounting(changed, now), *self._ends.find_ends(missing, reported, now)]
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
