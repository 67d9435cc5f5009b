"""Find the present facts of an open job for a look-up: from the last poll, or from Slurm.

Each answer has the time of its facts (`as_of`). If the facts cannot be read now, the answer is the last known
ones.

- The state is that of the record if the last complete poll covered the job and began within two seconds. If
  not, the batcher reads it with the states of other jobs in one request (Slurm 24.05 and newer).
- The known facts of a running job are valid until its state changes. The job itself is read if its state
  has changed, if no facts are known, or if its state cannot be listed.
- A pending job is read for its reason, and an array for the states of its tasks. Both are less urgent.
- Every request needs a token of the budget. If there is none, the last known facts are the answer.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cachetools import LRUCache

from app.errors import SlurmMisbehaved, SlurmProxyError, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.job_identity import is_same_job, to_open_job
from app.lifecycle.job_readings import JobReading, JobReadings
from app.lifecycle.known_facts import JobFacts
from app.lifecycle.shared_status import LastPoll
from app.models.record import RecordKind, TaskRecord, utc_now
from app.slurm.client import SlurmClient
from app.slurm.request_budget import RequestBudget
from app.slurm.state_batcher import MAX_AGE, StateBatcher, StateReading

_STATES_RESERVE = 0.25  # the share of the budget that only requests for states may use
_URGENT_RESERVE = 0.5  # the share of the budget that less urgent requests leave to all others
_REREAD_AFTER = timedelta(seconds=60)  # the user may change a running job, such as its time limit
_MAX_LISTED = 5000  # jobs of which the last listed state is remembered
_QUICK_FAILURE_SECONDS = 1.0  # a request that fails so soon may have failed because of one of its jobs


class PresentFacts:
    """Finder of the present facts of open jobs. Thread-safe."""

    def __init__(
        self,
        slurm: SlurmClient,
        budget: RequestBudget,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make a finder that knows nothing yet.

        Args:
            slurm: The client of Slurm.
            budget: The requests that may be made.
            clock: Seconds of a monotonic clock.
            now: Returns the time by the store's clock, which records and polls have, too.
        """
        self._slurm = slurm
        self._clock = clock
        self._now = now
        self._readings = JobReadings(slurm, budget, clock, now)
        self._batcher = StateBatcher(slurm.read_states, budget, clock, now=now)
        # By uuid, the states that were listed for jobs of which no facts are known.
        self._listed: LRUCache[str, JobFacts] = LRUCache(_MAX_LISTED)
        self._lock = threading.Lock()

    def find(self, record: TaskRecord, job_id: int, poll: LastPoll | None) -> JobFacts:
        """Return the facts about the job of an open record.

        Args:
            record: The record.
            job_id: The id of its job.
            poll: The last complete poll, as it was known before the record was read.

        Raises:
            StoreUnavailable: The store's time is not known.
        """
        job = _Job(record, job_id, poll, self._find_known(record, job_id))
        reading = self._readings.find_recent(job_id)
        if reading is not None and reading.at >= job.known.as_of:
            return job.describe(reading)
        try:
            self._slurm.require_up()
        except SlurmUnavailable as error:
            return job.fall_back(error)
        if job.known.job is None:
            return self._find_without_facts(job)
        if job.may_be_array:  # its tasks are listed under ids of their own
            return self._read_job(job, _URGENT_RESERVE) or job.known
        return self._check_state(job)

    def _find_known(self, record: TaskRecord, job_id: int) -> JobFacts:
        """Return the newest known facts: those that this process has read, or those of the record."""
        last = self._readings.find_last(job_id)
        recorded = JobFacts(record.job, record.slurm_job_state, record.updated_at)
        job = last.job if last is not None and last.at > record.updated_at else None
        if last is not None and job is not None and is_same_job(to_open_job(record, job_id), job):
            return recorded if recorded.has_begun_since(last) else JobFacts(job, job.job_state, last.at)
        with self._lock:
            listed = self._listed.get(record.uuid)
        if record.job is None and listed is not None and listed.as_of > record.updated_at:
            return listed
        return recorded

    def _find_without_facts(self, job: "_Job") -> JobFacts:
        """Return the facts about a job of which only the state is known, or its present state.

        Slurm reuses ids, and a list of states has no users. So a final state may be that of another job.
        """
        if (facts := self._read_job(job, _STATES_RESERVE)) is not None:
            return facts
        if job.may_be_array:
            return job.known
        listed = self._read_state(job)
        if listed is None or listed.state is None or listed.state.is_final:
            return job.fall_back(listed.error if listed else None)
        facts = JobFacts(None, listed.state, listed.at)
        with self._lock:
            self._listed[job.record.uuid] = facts
        return facts

    def _check_state(self, job: "_Job") -> JobFacts:
        """Return the known facts if the job is still in the same state; otherwise read the job."""
        began = self._clock()
        listed = self._read_state(job)
        error = listed.error if listed else None
        if error is not None and self._clock() - began > _QUICK_FAILURE_SECONDS:
            return job.fall_back(error)
        if listed is None or listed.state is None or listed.state is not job.known.state:
            return self._read_job(job, _STATES_RESERVE) or job.fall_back(error)
        if listed.state.is_waiting:
            return self._read_job(job, _URGENT_RESERVE) or job.known
        if (
            not job.known.is_younger(_REREAD_AFTER, self._now())
            and (facts := self._read_job(job, _URGENT_RESERVE)) is not None
        ):
            return facts
        return job.confirm(listed)

    def _read_state(self, job: "_Job") -> StateReading | None:
        """Return the present state of a job, or an error; None if it cannot be listed now."""
        if job.poll is not None and 0 <= job.poll.age <= MAX_AGE and (polled := job.find_polled_state()):
            return polled
        try:
            return self._batcher.read(job.job_id) if self._slurm.offers_states() else None
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            return StateReading(None, self._now(), error)

    def _read_job(self, job: "_Job", reserve: float) -> JobFacts | None:
        """Return the facts about a job, or an error; None if it may not be read now."""
        reading = self._readings.read(job.job_id, reserve)
        return None if reading is None else job.describe(reading)


@dataclass(frozen=True, slots=True)
class _Job:
    """Job of an open record, with the last complete poll and the newest facts that were read."""

    record: TaskRecord
    job_id: int
    poll: LastPoll | None
    known: JobFacts

    @property
    def may_be_array(self) -> bool:
        """Return whether the job may be an array, by its facts or by the task that was submitted."""
        if self.known.job is not None:
            return self.known.job.array_tasks is not None
        if self.record.kind is not RecordKind.SUBMITTED or self.record.taken_over_at is not None:
            return True
        options = self.record.full_task.get("slurm")
        return isinstance(options, dict) and bool(options.get("array"))

    def find_polled_state(self) -> StateReading | None:
        """Return the state in the last complete poll, unless newer facts are known."""
        poll, record = self.poll, self.record
        if poll is None or poll.began < self.known.as_of or not poll.covers(self.job_id, record.updated_at):
            return None
        return StateReading(record.slurm_job_state, poll.began)

    def confirm(self, listed: StateReading) -> JobFacts:
        """Return the known facts as of a later time at which the job was in the same state.

        The reason of a job that waits may have changed since then. If only a state is known, return the later
        one.
        """
        if self.known.job is None:
            return JobFacts(None, listed.state, listed.at)
        may_differ = listed.state is not None and listed.state.is_waiting
        is_same = listed.state is self.known.state
        return replace(self.known, as_of=listed.at) if is_same and not may_differ else self.known

    def fall_back(self, error: SlurmProxyError | None) -> JobFacts:
        """Return the facts that are known without a request, with the error of a request that failed."""
        polled = None if self.may_be_array else self.find_polled_state()
        return replace(self.confirm(polled) if polled else self.known, error=error)

    def describe(self, reading: JobReading) -> JobFacts:
        """Return the facts in a reading; another job may have the id by now."""
        if reading.error is not None:
            return replace(self.known, error=reading.error)
        if reading.job is not None and is_same_job(to_open_job(self.record, self.job_id), reading.job):
            if self.known.has_begun_since(reading):
                return self.known
            return JobFacts(reading.job, reading.job.job_state, reading.at)
        return JobFacts(None, JobState.UNKNOWN, reading.at)
