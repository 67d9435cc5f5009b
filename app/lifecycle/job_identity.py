"""Decide whether a job in Slurm is the job of a record: Slurm reuses job ids."""

from collections.abc import Iterable
from datetime import timedelta

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import JOB_TAG, OpenJob, TaskRecord

# How far the store's clock and Slurm's may be apart, for a job that was never seen in slurmctld.
_MAX_DIFFERENCE = timedelta(minutes=10)


def make_tag(uuid: str) -> str:
    """Return the first word of a job's comment, which ties the job to its task."""
    return JOB_TAG + uuid


def is_tagged(job: SlurmJob, uuid: str) -> bool:
    """Return whether the comment of the job begins with the tag; the caller's own comment may follow."""
    return (job.comment or "").partition(" ")[0] == make_tag(uuid)


def find_tagged(record: TaskRecord, jobs: Iterable[SlurmJob]) -> SlurmJob | None:
    """Return the job among `jobs` that has the tag and the user of the record."""
    found = (job for job in jobs if job.username == record.slurm_username and is_tagged(job, record.uuid))
    return next(found, None)


def is_same_job(record: OpenJob, job: SlurmJob | None) -> bool:
    """Return whether `job` is the record's job: by the tag in the comment, else by user and submit time.

    slurmctld always has the comment, slurmdbd only with AccountingStoreFlags=job_comment.
    A requeued job keeps its id and gets a new submit time. The older server may have registered a job long
    after its submission, but another job that has its id now was submitted later than that.
    """
    if job is None or job.username != record.slurm_username:
        return False
    if is_tagged(job, record.uuid):
        return True
    has_other_tag = (job.comment or "").startswith(JOB_TAG)
    if record.submit_time is not None:
        return job.submit_time == record.submit_time or (job.restarts > 0 and not has_other_tag)
    if job.submit_time is None or has_other_tag:
        return False
    if record.is_taken_over:
        return job.submit_time <= record.created_at + _MAX_DIFFERENCE or job.restarts > 0
    return abs(job.submit_time - record.created_at) <= _MAX_DIFFERENCE


def to_open_job(record: TaskRecord, job_id: int) -> OpenJob:
    """Return the part of the record that identifies its job."""
    return OpenJob(
        uuid=record.uuid,
        slurm_job_id=job_id,
        slurm_job_state=record.slurm_job_state or JobState.UNKNOWN,
        slurm_username=record.slurm_username,
        created_at=record.created_at,
        submit_time=record.job.submit_time if record.job else None,
        is_taken_over=record.taken_over_at is not None,
    )
