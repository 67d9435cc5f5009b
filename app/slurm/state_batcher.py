"""Let all look-ups of a process that wait at the same time share one request for states."""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cachetools import TTLCache

from app.errors import SlurmMisbehaved, SlurmProxyError, SlurmUnavailable
from app.job_state import JobState
from app.models.record import utc_now
from app.slurm.id_chunks import MAX_IDS
from app.slurm.request_budget import RequestBudget

MAX_AGE = 2.0  # seconds for which all callers get the same facts
_REFRESHED_AFTER = 1.0  # seconds; a request that is made for other jobs also reads states that are older
_REMEMBERED_SECONDS = 5.0  # for which a job that a caller asked for is refreshed
_MAX_WAIT = 5.0  # seconds
_MAX_JOBS = 10_000

# Returns the states of jobs: None for a job of which the list does not tell the state. A job whose request
# failed is left out. The whole result is None if the server has no list of states.
ReadStates = Callable[[Collection[int]], Mapping[int, JobState | None] | None]


@dataclass(frozen=True, slots=True)
class StateReading:
    """State of a job in a list of states.

    Attributes:
        state: The state; None if the list does not tell it, as for an array, or a job that Slurm forgot.
        at: A time before the answer of Slurm.
        error: Why Slurm gave no answer.
    """

    state: JobState | None
    at: datetime
    error: SlurmProxyError | None = None


@dataclass(slots=True)
class _Batch:
    """Batch of the jobs whose callers wait for the same request."""

    job_ids: dict[int, None] = field(default_factory=dict)
    is_done: bool = False
    error: StateReading | None = None  # for all callers


class StateBatcher:
    """Batcher of requests for states: one of the waiting callers makes the request for all. Thread-safe.

    While a request is under way, further callers wait for the next one. If the request fails, they get its
    error, so that no caller waits for two failures. A request also reads the states of other jobs that
    callers asked for a short while ago, as many as fit. So a thousand jobs cost one request a second.
    """

    def __init__(
        self,
        read_states: ReadStates,
        budget: RequestBudget,
        clock: Callable[[], float] = time.monotonic,
        *,
        now: Callable[[], datetime] = utc_now,
        max_wait: float = _MAX_WAIT,
    ) -> None:
        """Make a batcher that knows no state.

        Args:
            read_states: Makes the request; is called by one thread at a time.
            budget: The requests that may be made.
            clock: Seconds of a monotonic clock.
            now: Returns the time of readings, by the store's clock.
            max_wait: Seconds that a caller waits for the request of another caller.
        """
        self._max_wait = max_wait
        self._read_states = read_states
        self._budget = budget
        self._clock = clock
        self._now = now
        self._condition = threading.Condition()
        self._is_busy = False  # while a request is under way
        self._next = _Batch()
        self._read_at: dict[int, float] = {}
        self._readings: TTLCache[int, StateReading] = TTLCache(_MAX_JOBS, MAX_AGE, clock)
        self._asked: TTLCache[int, None] = TTLCache(_MAX_JOBS, _REMEMBERED_SECONDS, clock)

    def read(self, job_id: int) -> StateReading | None:
        """Return the state of a job, at most two seconds old.

        Returns:
            None if no request may be made now, or if the request did not read the state of this job.

        Raises:
            StoreUnavailable: The store's time is not known.
        """
        asked_at = self._now()
        with self._condition:
            self._asked[job_id] = None
            batch = self._join(job_id)
            if (reading := self._readings.get(job_id)) is not None:
                return reading
            if batch.is_done:
                return batch.error
            if self._is_busy:
                return _make_failed_reading(SlurmUnavailable("slurmctld does not answer in time"), asked_at)
            if not self._budget.take():
                return None
            self._next, self._is_busy = _Batch(), True
            job_ids = self._choose_jobs(job_id, batch)
        self._make_request(batch, job_ids, asked_at)
        with self._condition:
            return batch.error or self._readings.get(job_id)

    def _join(self, job_id: int) -> _Batch:
        """Wait until the state is known, the next request has ended, or this caller may make it."""
        batch = self._next
        if self._is_busy and job_id not in self._readings:
            batch.job_ids[job_id] = None
            self._condition.wait_for(
                lambda: batch.is_done or not self._is_busy or job_id in self._readings, self._max_wait
            )
        return batch

    def _choose_jobs(self, job_id: int, batch: _Batch) -> list[int]:
        """Return a job, those of the batch, and others whose states are the oldest, for one request."""
        wanted = {job_id: None} | batch.job_ids
        before = self._clock() - _REFRESHED_AFTER
        self._read_at = {job_id: self._read_at.get(job_id, -math.inf) for job_id in self._asked}
        others = {job_id for job_id, at in self._read_at.items() if at < before}.difference(wanted)
        return [*wanted, *sorted(others, key=self._read_at.__getitem__)][:MAX_IDS]

    def _make_request(self, batch: _Batch, job_ids: Collection[int], asked_at: datetime) -> None:
        """Make the request, and wake up all callers, whatever happens."""
        began, at = self._clock(), asked_at
        states: Mapping[int, JobState | None] = {}
        failure: SlurmProxyError = SlurmUnavailable("the request for states was not made")
        is_answered = False
        try:
            at = self._now()
            states = self._read_states(job_ids) or {}
            is_answered = True
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            failure = error
        finally:
            with self._condition:
                for job_id in job_ids:
                    if job_id in states:
                        self._readings[job_id] = StateReading(states[job_id], at)
                        self._read_at[job_id] = began
                    else:  # this job may be why the request failed: only its own callers ask for it again
                        self._asked.pop(job_id, None)
                self._finish(batch, None if is_answered else _make_failed_reading(failure, at))

    def _finish(self, batch: _Batch, error: StateReading | None) -> None:
        batch.is_done = True
        if error is not None:
            batch.error = self._next.error = error
            self._next.is_done = True
            self._next = _Batch()
        self._is_busy = False
        self._condition.notify_all()


def _make_failed_reading(error: SlurmProxyError, at: datetime) -> StateReading:
    return StateReading(None, at, error)
