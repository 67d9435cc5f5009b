"""Read the states of jobs from slurmctld, at a cost that does not grow with the number of all jobs."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm.job_list import JobList
from app.slurm.large_array_reader import LargeArrayReader
from app.slurm.large_arrays import LargeArrays
from app.slurm.session import Session
from app.slurm.single_reads import SingleRead, SingleReader
from app.slurm.state_changes import find_changes, is_worth_reading
from app.slurm.state_list import StateList, States

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_ARRAY_INTERVAL = 15.0  # seconds between two readings of a small array whose own id shows no change
_MAX_FIRST_READS = 10  # in one poll, of jobs whose states were never listed
_REUSED_SECONDS = 30.0  # how long an end that was read is not read again, until it is recorded


@dataclass(frozen=True, slots=True)
class _Reading:
    """The last reading of a job, its time, and the state that the list of states showed then."""

    at: float
    state: JobState | None
    job: SlurmJob


class JobReader:
    """Reader of job states in chunks, of large arrays each in the cheaper way, and of jobs one by one.

    The list of all jobs is read only from servers without a list of states. Every call is limited in time,
    and what was read before a request failed is kept. The job whose request failed comes last at the next
    call.

    Attributes:
        unread: The ids of the jobs whose state the last poll did not find out, without arrays.
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
        self._clock = clock
        self.states = StateList(session)
        self.single = SingleReader(session, clock)
        self.list = JobList(session, self.single, clock_skew, clock)
        self._large = LargeArrays(clock)
        self._large_reader = LargeArrayReader(self._large, self.states, self.single, clock)
        self._polled: set[int] = set()  # jobs that an earlier poll has asked for
        self._readings: dict[int, _Reading] = {}  # of small arrays that are active, and of ends
        self.unread: frozenset[int] = frozenset()

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
        self._keep_only(known)
        self.unread = frozenset(known)
        if not self.states.is_offered():
            return self._poll_list(known)
        found = self._read_first(known)
        listed = [job_id for job_id in known if job_id not in self._large]
        states = self.states.read([job_id for job_id in listed if job_id not in ended_arrays])
        arrays = self._states_of_arrays([job_id for job_id in listed if job_id in ended_arrays])
        if states is None or arrays is None:
            return self._poll_list(known)
        changed = self._list_changed(known, states)
        found |= self._read_changed(changed, states, arrays)
        for read in (states, arrays):
            self._large.note_states(read)
        left = {job_id: state for job_id, state in known.items() if job_id not in found}
        found |= self._large_reader.poll(left, may_raise=not (states.asked or arrays.asked or found))
        unread = (known.keys() - states.asked - arrays.asked).union(changed)
        self.unread = frozenset(unread - found.keys() - states.own_tasks.keys() - self._large.list_ids())
        return find_changes(known, found) | dict.fromkeys(states.missing | arrays.missing)

    def read(self, job_ids: Collection[int]) -> dict[int, SlurmJob | None]:
        """Return these jobs as slurmctld describes them, without those that cannot be read.

        At most a thousand jobs are read in one call, those whose last reading is longest ago first.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        return {job_id: read.job for job_id, read in self.single.read(job_ids).items()}

    def _poll_list(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        found = self.list.poll(known)
        self.unread = self.list.unread
        return found

    def _keep_only(self, known: Mapping[int, JobState]) -> None:
        """Forget the jobs that are no longer polled."""
        self.states.keep_only(known)
        self._large.keep_only(known)
        self._readings = {job_id: reading for job_id, reading in self._readings.items() if job_id in known}

    def _read_first(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """Read the new jobs that wait, if they are few: an array of them may be too large to be listed."""
        new = [job_id for job_id, state in known.items() if job_id not in self._polled and state.is_waiting]
        self._polled = set(known)
        if len(new) > _MAX_FIRST_READS:
            return {}
        try:
            reads = self.single.read(new)
        except SlurmUnavailable as error:
            logger.warning("none of %d new jobs was read: %s", len(new), error)
            return {}
        self._note_readings(States(), reads)
        return {job_id: read.job for job_id, read in reads.items()}

    def _states_of_arrays(self, ended_arrays: Collection[int]) -> States | None:
        """Return the states of ended arrays; an array may have too many tasks to be listed in time."""
        try:
            return self.states.read(ended_arrays)
        except SlurmUnavailable as error:
            logger.warning("the states of %d ended arrays were not read: %s", len(ended_arrays), error)
            return States()

    def _list_changed(self, known: Mapping[int, JobState], states: States) -> list[int]:
        """Return the jobs whose listed state is another than the known one."""
        listed = states.named & states.asked
        differing = [job_id for job_id in listed if states.states.get(job_id) is not known[job_id]]
        return [job_id for job_id in differing if is_worth_reading(known[job_id], states.states.get(job_id))]

    def _read_changed(
        self, changed: Iterable[int], states: States, arrays: States
    ) -> dict[int, SlurmJob | None]:
        """Read the changed jobs and the ended arrays that may be active again; an end is read once."""
        found: dict[int, SlurmJob | None] = {}
        to_read: list[int] = []
        for job_id in changed:
            reading = self._last_reading(job_id, states.states.get(job_id))
            if reading is None:
                to_read.append(job_id)
            elif reading.job.job_state.is_final:
                found[job_id] = reading.job
        if arrays.has_active:  # an active task has an id of its own, which does not show its array
            to_read += arrays.named & arrays.asked
        try:
            reads = self.single.read(to_read)
        except SlurmUnavailable as error:  # one job's request may always fail; the states were read
            logger.warning("none of %d changed jobs was read: %s", len(to_read), error)
            reads = {}
        self._note_readings(states, reads)
        return found | {job_id: read.job for job_id, read in reads.items()}

    def _last_reading(self, job_id: int, state: JobState | None) -> _Reading | None:
        """Return the last reading of a job if it is recent, and the listed state is still the same.

        An array's own id has the state of the waiting tasks, or of the last task, not that of the array.
        """
        reading = self._readings.get(job_id)
        if reading is None or reading.state is not state:
            return None
        is_ended = reading.job.job_state.is_final
        is_recent = self._clock() - reading.at < (_REUSED_SECONDS if is_ended else _ARRAY_INTERVAL)
        return reading if is_recent else None

    def _note_readings(self, states: States, reads: Mapping[int, SingleRead]) -> None:
        for job_id, read in reads.items():
            self._large.note_read(job_id, read)
            if read.job is not None and bool(read.job.array_tasks) is not read.job.job_state.is_final:
                self._readings[job_id] = _Reading(self._clock(), states.states.get(job_id), read.job)
