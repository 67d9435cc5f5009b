"""Decide whether the end of a job that the older server recorded is too old to be announced."""

from datetime import timedelta

from app.models.job import SlurmJob
from app.models.record import TaskRecord

# An end is announced if it came at most so long before the take-over.
_MAX_AGE = timedelta(days=1)
# How long a job that Slurm no longer knows may have run after the last change of its record.
_MAX_JOB_DURATION = timedelta(days=30)


def is_too_old_to_announce(record: TaskRecord, job: SlurmJob) -> bool:
    """Return whether the job ended long before its record was taken over."""
    if record.taken_over_at is None or not job.job_state.is_settled:
        return False
    if job.end_time is not None:
        return job.end_time < record.taken_over_at - _MAX_AGE
    last_change = max(record.created_at, record.updated_at)
    return last_change < record.taken_over_at - _MAX_JOB_DURATION
