"""Choose how to poll each large job array: by the states of its tasks, or by its records.

A list of states has an entry for each task, also for those that wait: 90 bytes and 0.025 ms (24.11). The
array itself has one record for all waiting tasks, and one for each other task: 9 kB and 0.4 ms. So an array
of 20,000 waiting tasks is cheap to read, and one of 5,000 running tasks is cheap to list.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from app.job_state import JobState
from app.slurm.single_reads import SingleRead
from app.slurm.state_list import States

_MAX_SMALL = 100  # tasks whose states cost about as much as one more request
_STATES_PER_RECORD = 20  # states that take slurmctld as long as one record
_PAUSE_FACTOR = 20  # an array is polled for at most a twentieth of the time
_MAX_PAUSE = 60.0  # seconds
_FIRST_TIMEOUT = 5.0  # seconds; doubled after each failure
_MAX_TIMEOUT = 60.0


@dataclass(slots=True)
class _Array:
    """Facts from the last reading of an array.

    Attributes:
        tasks: How many tasks a list of states has.
        records: How many records the array itself has; 0 for a job of which nothing could be read yet.
        by_states: Whether the array is polled by the states of its tasks.
        due_at: When the array is polled again.
        failures: How often polling has failed since the last success.
    """

    tasks: int
    records: int
    by_states: bool
    due_at: float = 0.0
    failures: int = 0

    @property
    def is_large(self) -> bool:
        return self.tasks > _MAX_SMALL


class LargeArrays:
    """The arrays that are polled apart from other jobs, each at a rate that follows from its cost.

    Not thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without arrays. `clock`: seconds of a monotonic clock."""
        self._clock = clock
        self._arrays: dict[int, _Array] = {}

    def __contains__(self, job_id: int) -> bool:
        """Return whether the job is a large array."""
        array = self._arrays.get(job_id)
        return array is not None and array.is_large

    def keep_only(self, job_ids: Collection[int]) -> None:
        """Forget all other arrays, which are no longer polled."""
        self._arrays = {job_id: array for job_id, array in self._arrays.items() if job_id in job_ids}

    def list_ids(self) -> set[int]:
        """Return the ids of the large arrays, without those of which nothing could be read yet."""
        return {job_id for job_id, array in self._arrays.items() if array.is_large and array.records}

    def list_due(self, job_ids: Collection[int]) -> Sequence[int]:
        """Return the large arrays to poll now, the one that is due longest first."""
        now = self._clock()
        large = [(array.due_at, job_id) for job_id, array in self._arrays.items() if array.is_large]
        return [job_id for due_at, job_id in sorted(large) if due_at <= now and job_id in job_ids]

    def is_polled_by_states(self, job_id: int) -> bool:
        """Return whether the states of the array's tasks are cheaper to read than its records."""
        return self._arrays[job_id].by_states

    def timeout(self, job_id: int) -> float:
        """Return the seconds that the next request about the array may take."""
        return float(min(_FIRST_TIMEOUT * 2 ** self._arrays[job_id].failures, _MAX_TIMEOUT))

    def note_states(self, states: States) -> None:
        """Find the large arrays among many jobs whose states were read together."""
        for job_id, own in states.own_tasks.items():
            others = states.other_tasks[job_id]  # an upper limit for this array
            if job_id not in self._arrays and own + others > _MAX_SMALL:
                self._arrays[job_id] = _measure(own + others, others + 1)

    def note_unlistable(self, job_ids: Collection[int]) -> None:
        """Poll jobs by their records whose states could not be read even alone."""
        for job_id in job_ids:
            if job_id not in self:
                self._arrays[job_id] = _Array(_MAX_SMALL + 1, 0, by_states=False)

    def note_tasks(
        self, job_id: int, tasks: Sequence[tuple[int | None, JobState | None]], seconds: float
    ) -> None:
        """Note the states of an array's tasks, and how long their reading took."""
        others = sum(task_id != job_id for task_id, _ in tasks)
        self._arrays[job_id] = _measure(len(tasks), others + (others < len(tasks)))
        self._schedule(job_id, seconds)

    def note_read(self, job_id: int, read: SingleRead) -> None:
        """Note the records of a job, which need not be an array."""
        if read.job is None or read.job.array_tasks is None:
            self._arrays.pop(job_id, None)
            return
        self._arrays[job_id] = _measure(max(read.job.array_task_count, read.records), read.records)
        self._schedule(job_id, read.seconds)

    def note_failure(self, job_id: int, seconds: float) -> None:
        """Note a failed request; the next one takes the other way, and has more time."""
        array = self._arrays[job_id]
        array.by_states = not array.by_states
        array.failures += 1
        self._schedule(job_id, seconds)

    def _schedule(self, job_id: int, seconds: float) -> None:
        self._arrays[job_id].due_at = self._clock() + min(_PAUSE_FACTOR * seconds, _MAX_PAUSE)


def _measure(tasks: int, records: int) -> _Array:
    return _Array(tasks, records, by_states=_STATES_PER_RECORD * records > tasks)
