"""Poll the large arrays that are due, each in the cheaper way."""

import logging
import time
from collections.abc import Callable, Mapping

from app.errors import SlurmMisbehaved, SlurmTokenRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.array_merging import merge_states
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm.large_arrays import LargeArrays
from app.slurm.single_reads import SingleReader
from app.slurm.state_changes import is_change
from app.slurm.state_list import StateList

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_MAX_SECONDS = 1.0  # in one poll


class LargeArrayReader:
    """Reader of large arrays, by the states of their tasks or by their records. Not thread-safe."""

    def __init__(
        self,
        large: LargeArrays,
        states: StateList,
        single: SingleReader,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a reader.

        Args:
            large: The arrays, and when they are due.
            states: Reads the states of their tasks.
            single: Reads their records.
            clock: Seconds of a monotonic clock.
        """
        self._large = large
        self._states = states
        self._single = single
        self._clock = clock

    def poll(self, known: Mapping[int, JobState], *, may_raise: bool) -> dict[int, SlurmJob | None]:
        """Return the arrays that were read, for a limited time.

        Raises:
            SlurmUnavailable: No array could be read, and `may_raise` is set.
        """
        self._large.note_unlistable(self._states.take_failed_alone())
        found: dict[int, SlurmJob | None] = {}
        was_polled, failure = False, None
        began = self._clock()
        for job_id in self._large.list_due(known):
            asked_at = self._clock()
            if asked_at - began > _MAX_SECONDS:
                break
            try:
                found |= self._poll_one(job_id, known[job_id])
                was_polled = True
            except (SlurmUnavailable, SlurmMisbehaved) as error:
                if isinstance(error, SlurmTokenRefused):
                    raise
                self._large.note_failure(job_id, self._clock() - asked_at)
                failure = error
                logger.warning("the array %d was not read: %s", job_id, error)
        if failure is not None and may_raise and not was_polled:
            raise failure
        return found

    def _poll_one(self, job_id: int, before: JobState) -> dict[int, SlurmJob | None]:
        """Return the array if it was read: its records are read only if the states show a change."""
        began = self._clock()
        timeout = self._large.timeout(job_id)
        if self._large.is_polled_by_states(job_id):
            tasks = self._states.read_tasks(job_id, timeout)
            self._large.note_tasks(job_id, tasks, self._clock() - began)
            if not tasks:
                return {job_id: None}
            states = {state for _, state in tasks if state is not None}
            is_readable = all(state is not None for _, state in tasks)
            if is_readable and not is_change(before, merge_states(states)):
                return {}
        read = self._single.time_one(job_id, timeout)
        if read is None:
            return {}
        self._large.note_read(job_id, read)
        return {job_id: read.job}
