"""Read jobs for look-ups, each at most once in two seconds, and within the budget of requests."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cachetools import LRUCache, TTLCache

from app.errors import SlurmMisbehaved, SlurmProxyError, SlurmUnavailable
from app.models.job import SlurmJob
from app.models.record import utc_now
from app.slurm.client import SlurmClient
from app.slurm.request_budget import RequestBudget
from app.slurm.state_batcher import MAX_AGE

_MAX_JOBS = 5000  # of which the last reading is remembered


@dataclass(frozen=True, slots=True)
class JobReading:
    """Result of reading a job.

    Attributes:
        job: The job; None if Slurm does not know it, or gave no answer.
        at: A time before the answer of Slurm.
        error: Why Slurm gave no answer.
    """

    job: SlurmJob | None
    at: datetime
    error: SlurmProxyError | None = None


class JobReadings:
    """Reader of single jobs. Callers that ask for a job at the same time share one request. Thread-safe."""

    def __init__(
        self,
        slurm: SlurmClient,
        budget: RequestBudget,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make a reader that has read nothing.

        Args:
            slurm: The client of Slurm.
            budget: The requests that may be made.
            clock: Seconds of a monotonic clock.
            now: Returns the time of readings, by the store's clock.
        """
        self._slurm = slurm
        self._budget = budget
        self._now = now
        self._condition = threading.Condition()
        self._under_way: set[int] = set()
        self._recent: TTLCache[int, JobReading] = TTLCache(_MAX_JOBS, MAX_AGE, clock)
        self._last: LRUCache[int, JobReading] = LRUCache(_MAX_JOBS)

    def find_recent(self, job_id: int) -> JobReading | None:
        """Return the last reading of a job if it is at most two seconds old."""
        with self._condition:
            return self._recent.get(job_id)

    def find_last(self, job_id: int) -> JobReading | None:
        """Return the last reading of a job that Slurm answered, however old it is."""
        with self._condition:
            return self._last.get(job_id)

    def read(self, job_id: int, reserve: float) -> JobReading | None:
        """Return a recent reading of a job, after a request if necessary; None if no request may be made now.

        Callers at the same time also share an error, so that they do not all try one after another.

        Args:
            job_id: The id of the job.
            reserve: The share of the budget that is left to more important requests.

        Raises:
            StoreUnavailable: The store's time is not known.
        """
        with self._condition:
            self._condition.wait_for(lambda: job_id not in self._under_way)
            if (reading := self._recent.get(job_id)) is not None:
                return reading
            if not self._budget.take(reserve):
                return None
            self._under_way.add(job_id)
        reading = None
        try:
            reading = self._request(job_id)
        finally:
            with self._condition:
                self._under_way.discard(job_id)
                self._condition.notify_all()
                if reading is not None:
                    self._recent[job_id] = reading
                    if reading.error is None:
                        self._last[job_id] = reading
        return reading

    def _request(self, job_id: int) -> JobReading:
        at = self._now()
        try:
            return JobReading(self._slurm.find_job(job_id), at)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            return JobReading(None, at, error)
