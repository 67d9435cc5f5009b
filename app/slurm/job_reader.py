"""Read the states of jobs from slurmctld, at a cost that does not grow with the number of all jobs."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm.answers import is_unchanged, jobs_by_id_or_none, require_jobs
from app.slurm.request import Query
from app.slurm.session import Session
from app.slurm.state_list import StateList, States

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_MAX_SINGLE_READS = 500  # in one call of `read`; a read takes slurmctld 2 ms, on a busy cluster 20 ms
_MAX_READING_SECONDS = 5.0
_ARRAY_INTERVAL = 15.0  # seconds between two readings of an array whose own id shows no change
_REMEMBERED_SECONDS = 600.0  # how long the order of single reads is kept
_FULL_LIST_EVERY = 300  # seconds; finds changes that a larger clock skew would hide

_NOT_FOUND = 2017


@dataclass(frozen=True, slots=True)
class _ArrayReading:
    """Time of the last reading of an array, and the state that the list of states showed for its id."""

    at: float
    state: JobState | None


class JobReader:
    """Reader of job states in chunks, and of jobs one by one.

    The list of all jobs is read only from servers without a list of states. Every call is limited in time,
    and what was read before a request failed is kept. The job whose request failed comes last at the next
    call.
    """

    def __init__(
        self, session: Session, clock_skew: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a reader.

        Args:
            session: The session with slurmrestd.
            clock_skew: Seconds that this machine's clock may run ahead of Slurm's.
            clock: Seconds of a monotonic clock.
        """
        self._session = session
        self._clock_skew = clock_skew
        self._clock = clock
        self.states = StateList(session)
        self._read_at: dict[int, float] = {}
        self._arrays: dict[int, _ArrayReading] = {}
        self._list_since = 0
        self._listed_at = 0.0

    def poll(
        self, known: Mapping[int, JobState], ended_arrays: Collection[int] = ()
    ) -> dict[int, SlurmJob | None]:
        """Return the jobs whose state changed, and None for a job that slurmctld does not know.

        A job that had ended counts as changed only if it is active again. A job that is not in the result is
        unchanged, cannot be read, or is read by a later call.

        Args:
            known: The last known state of each job, by its id.
            ended_arrays: The ids of the arrays among them whose tasks have all ended.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        self.states.keep_only(known)
        single = [job_id for job_id in known if job_id not in ended_arrays]
        states = self.states.read(single)
        arrays = self._states_of_arrays(ended_arrays)
        if states is None or arrays is None:
            return self._changes_in_list(known)
        to_read = [
            job_id
            for job_id in states.named & states.asked
            if _is_worth_reading(known[job_id], states.states.get(job_id))
            and not self._was_array_read(job_id, states.states.get(job_id))
        ]
        if arrays.has_active:  # an active task has an id of its own, which does not show its array
            to_read += arrays.named & arrays.asked
        try:
            found = self.read(to_read)
        except SlurmUnavailable as error:  # one job's request may always fail; the states were read
            logger.warning("none of %d changed jobs was read: %s", len(to_read), error)
            found = {}
        self._remember_arrays(known, states.states, found)
        return _changes(known, found) | dict.fromkeys(states.missing | arrays.missing)

    def _was_array_read(self, job_id: int, state: JobState | None) -> bool:
        """Return whether an array was read a short while ago, and its own id has still the same state.

        The array's own id has the state of the waiting tasks, or of the last task, not that of the array.
        """
        reading = self._arrays.get(job_id)
        if reading is None or reading.state is not state:
            return False
        return self._clock() - reading.at < _ARRAY_INTERVAL

    def _remember_arrays(
        self,
        known: Mapping[int, JobState],
        states: Mapping[int, JobState],
        found: Mapping[int, SlurmJob | None],
    ) -> None:
        self._arrays = {job_id: reading for job_id, reading in self._arrays.items() if job_id in known}
        for job_id, job in found.items():
            if job is not None and job.array_tasks and not job.job_state.is_final:
                self._arrays[job_id] = _ArrayReading(self._clock(), states.get(job_id))

    def _states_of_arrays(self, ended_arrays: Collection[int]) -> States | None:
        """Return the states of ended arrays; an array may have too many tasks to be listed in time."""
        try:
            return self.states.read(ended_arrays)
        except SlurmUnavailable as error:
            logger.warning("the states of %d ended arrays were not read: %s", len(ended_arrays), error)
            return States()

    def read(self, job_ids: Collection[int]) -> dict[int, SlurmJob | None]:
        """Return these jobs as slurmctld describes them, without those that cannot be read.

        At most a few hundred jobs are read in one call, those whose last reading is longest ago first.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        began = self._clock()
        found: dict[int, SlurmJob | None] = {}
        for job_id in self._longest_unread(job_ids)[:_MAX_SINGLE_READS]:
            if self._clock() - began > _MAX_READING_SECONDS:
                break
            self._read_at[job_id] = self._clock()
            try:
                found |= self.read_one(job_id)
            except SlurmUnavailable as error:
                if not found:
                    raise
                logger.warning("%d of %d jobs were read: %s", len(found), len(job_ids), error)
                break
        return found

    def read_one(self, job_id: int) -> dict[int, SlurmJob | None]:
        """Return one job as slurmctld describes it; the result is empty if the job cannot be read."""
        return jobs_by_id_or_none([job_id], self.raw_job(job_id))

    def raw_job(self, job_id: int, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return the parts of one job: several for an array, none for a job that slurmctld does not know."""
        reply = self._session.get(f"job/{job_id}", timeout=timeout)
        is_slurms_404 = reply.status == 404 and bool(reply.errors())  # a proxy's has another form
        if is_slurms_404 or any(number == _NOT_FOUND for number, _ in reply.errors()):
            return []
        return require_jobs(reply)

    def since(self, seconds: int) -> Query:
        """Return the query for a list of jobs that slurmrestd sends only if a job changed since then."""
        return [("update_time", self._session.dialect().update_time(seconds))] if seconds else []

    def _longest_unread(self, job_ids: Collection[int]) -> list[int]:
        since = self._clock() - _REMEMBERED_SECONDS
        self._read_at = {job_id: at for job_id, at in self._read_at.items() if at > since}
        return sorted(job_ids, key=lambda job_id: self._read_at.get(job_id, 0.0))

    def _changes_in_list(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """Return the changes in the list of all jobs, for servers without a list of states.

        slurmrestd sends the list only if a job changed since `_list_since`. That time advances only after a
        list without changes, so that a change that could not be stored is read again.
        """
        if not known:
            return {}
        asked_at = time.time()
        since = 0 if asked_at - self._listed_at > _FULL_LIST_EVERY else self._list_since
        reply = self._session.get("jobs", self.since(since))
        if is_unchanged(reply):
            return {}
        self._listed_at = asked_at if since == 0 else self._listed_at
        changes = _changes(known, jobs_by_id_or_none(list(known), require_jobs(reply)))
        if not changes:
            self._list_since = int(asked_at - self._clock_skew)
        return changes


def _is_worth_reading(before: JobState, state: JobState | None) -> bool:
    """Return whether to read a job; a job with an unreadable state is read unless it had ended."""
    return not before.is_final if state is None else _is_change(before, state)


def _changes(
    known: Mapping[int, JobState], found: Mapping[int, SlurmJob | None]
) -> dict[int, SlurmJob | None]:
    """Return the jobs whose state changed, and those that slurmctld does not know."""
    return {
        job_id: job
        for job_id, job in found.items()
        if job is None or _is_change(known[job_id], job.job_state)
    }


def _is_change(before: JobState, state: JobState) -> bool:
    return not state.is_final if before.is_final else state is not before
