"""Read jobs from slurmctld one by one: a bounded number at a time, of which a few at once."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from app.errors import SlurmUnavailable
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm.answers import jobs_by_id_or_none, require_jobs
from app.slurm.session import Session

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

MAX_READS = 1000  # in one call of `read`: 1.1 s with three threads (24.11, two cores)
_MAX_SECONDS = 5.0  # of one call; a read takes slurmctld 2 ms, on a busy cluster 20 ms
_THREADS = 3  # the connections of the poller
_MIN_FOR_THREADS = 8  # reads; starting threads for fewer saves nothing
_MAX_FAILURES = 2  # in one call; three in a row open the circuit breaker
_REMEMBERED_SECONDS = 600.0  # how long the order of reads is kept

_NOT_FOUND = 2017


@dataclass(slots=True)
class SingleRead:
    """Result of reading one job: None for a job that slurmctld does not know.

    Attributes:
        job: The job; the tasks of an array are merged.
        records: How many records slurmctld sent: one for each task of an array with an id of its own, and
            one for all others.
        seconds: How long the request took.
    """

    job: SlurmJob | None
    records: int
    seconds: float


class SingleReader:
    """Reader of single jobs, those whose last reading is longest ago first.

    A job whose request fails stops no other job, and comes last at the next call. One thread at a time may
    call `read`; `read_one` and `raw_job` are thread-safe.
    """

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a reader. `clock`: seconds of a monotonic clock."""
        self._session = session
        self._clock = clock
        self._read_at: dict[int, float] = {}

    def read(self, job_ids: Collection[int], limit: int = MAX_READS) -> dict[int, SingleRead]:
        """Return these jobs as slurmctld describes them, without those that cannot be read.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        batch = _Batch(iter(self.longest_unread(job_ids)[:limit]), self._clock() + _MAX_SECONDS)
        if len(job_ids) < _MIN_FOR_THREADS:
            self._read_batch(batch)
        else:
            with ThreadPoolExecutor(_THREADS, "slurm-read") as pool:
                workers = [pool.submit(self._read_batch, batch) for _ in range(_THREADS)]
            for worker in workers:
                worker.result()
        if batch.failures and not batch.found:
            raise batch.failures[0]
        if batch.failures:
            logger.warning("%d of %d jobs were read: %s", len(batch.found), len(job_ids), batch.failures[0])
        return batch.found

    def read_one(self, job_id: int, timeout: float | None = None) -> dict[int, SlurmJob | None]:
        """Return one job as slurmctld describes it; the result is empty if the job cannot be read."""
        return jobs_by_id_or_none([job_id], self.raw_job(job_id, timeout))

    def raw_job(self, job_id: int, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return the parts of one job: several for an array, none for a job that slurmctld does not know."""
        reply = self._session.get(f"job/{job_id}", timeout=timeout)
        is_slurms_404 = reply.status == 404 and bool(reply.errors())  # a proxy's has another form
        if is_slurms_404 or any(number == _NOT_FOUND for number, _ in reply.errors()):
            return []
        return require_jobs(reply)

    def longest_unread(self, job_ids: Collection[int]) -> Sequence[int]:
        """Return the ids in the order in which they are due."""
        since = self._clock() - _REMEMBERED_SECONDS
        self._read_at = {job_id: at for job_id, at in self._read_at.copy().items() if at > since}
        return sorted(job_ids, key=lambda job_id: self._read_at.get(job_id, 0.0))

    def time_one(self, job_id: int, timeout: float | None = None) -> SingleRead | None:
        """Return one job, with the cost of reading it; None for a job that cannot be read."""
        began = self._read_at[job_id] = self._clock()
        parts = self.raw_job(job_id, timeout)
        found = jobs_by_id_or_none([job_id], parts)
        if job_id not in found:
            return None
        return SingleRead(found[job_id], len(parts), self._clock() - began)

    def _read_batch(self, batch: "_Batch") -> None:
        """Read jobs of the batch until none is left; several threads may do so at once."""
        while (job_id := batch.next(self._clock())) is not None:
            try:
                read = self.time_one(job_id)
            except SlurmUnavailable as error:  # the request for one job may always fail
                batch.fail(error)
                continue
            if read is not None:
                batch.found[job_id] = read


@dataclass(slots=True)
class _Batch:
    """The jobs of one call that are still to be read, and the jobs that were read."""

    job_ids: Iterator[int]
    ends: float
    found: dict[int, SingleRead] = field(default_factory=dict)
    failures: list[SlurmUnavailable] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def next(self, now: float) -> int | None:
        """Return the next job to read; None if there is none, or no time is left."""
        with self.lock:
            is_over = now > self.ends or len(self.failures) >= _MAX_FAILURES
            return None if is_over else next(self.job_ids, None)

    def fail(self, error: SlurmUnavailable) -> None:
        with self.lock:
            self.failures.append(error)
