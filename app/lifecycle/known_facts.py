"""Hold what is known about the job of a record, and when Slurm reported it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.errors import SlurmProxyError
from app.job_state import JobState
from app.lifecycle.job_readings import JobReading
from app.models.job import SlurmJob

_POLL_TIME = timedelta(seconds=15)  # few polls take longer


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Facts about the job of a record.

    Attributes:
        job: What Slurm reported about the job; None if only the state is known.
        state: The state of the job.
        as_of: When Slurm reported the facts.
        error: Why Slurm did not answer; the other fields are then the last known facts.
    """

    job: SlurmJob | None
    state: JobState | None
    as_of: datetime
    error: SlurmProxyError | None = None

    def is_younger(self, age: timedelta, now: datetime) -> bool:
        """Return whether Slurm reported these facts no longer than `age` before `now`."""
        return self.job is not None and timedelta(0) <= now - self.as_of <= age

    def has_begun_since(self, reading: JobReading) -> bool:
        """Return whether the job has begun since a reading, although the reading seems to be newer.

        A poll has the time at which it began, and a job may be read and then begin during the poll. A job
        that waits again because it was requeued has more restarts.
        """
        job, read = self.job, reading.job
        if job is None or read is None or job.array_tasks is not None or reading.at > self.as_of + _POLL_TIME:
            return False
        is_begun_now = job.job_state.has_begun and not read.job_state.has_begun
        return is_begun_now and job.restarts == read.restarts
