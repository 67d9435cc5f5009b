"""Tell which ends of jobs are old news in a record that was taken over from the older server."""

from datetime import timedelta

from app.models.job import SlurmJob
from app.models.record import TaskRecord

# The older server may have been stopped for as long without an end being lost.
_ANNOUNCED_FOR = timedelta(days=1)
# A job that Slurm does not know any more may have run for as long after its record was last changed.
_LONGEST_JOB = timedelta(days=30)


def is_old_news(record: TaskRecord, job: SlurmJob) -> bool:
    """Return whether the job ended long before its record was taken over; such an end is not announced."""
    if record.taken_over_at is None or not job.job_state.is_settled:
        return False
    if job.end_time is not None:
        return job.end_time < record.taken_over_at - _ANNOUNCED_FOR
    last_change = max(record.created_at, record.updated_at)
    return last_change < record.taken_over_at - _LONGEST_JOB
