"""Merge the accounting of a job into the job as slurmctld reports it."""

from collections.abc import Iterable
from datetime import datetime

from app.lifecycle.job_identity import is_same_job
from app.models.job import SlurmJob
from app.models.record import OpenJob


def is_same_run(record: OpenJob, job: SlurmJob) -> bool:
    """Return whether slurmdbd describes the current run of the record's job, not one before a requeue."""
    if (
        record.submit_time is not None
        and job.submit_time is not None
        and job.submit_time < record.submit_time
    ):
        return False
    return is_same_job(record, job)


def merge_accounting(job: SlurmJob, accounted: SlurmJob) -> SlurmJob:
    """Return the job with the measurements of slurmdbd, and with the end that slurmctld reports.

    slurmdbd of 22.05 reports wrong exit codes. But slurmctld forgets the tasks of an array one by one, and
    slurmdbd has them all.
    """
    measured = {"max_memory_bytes": accounted.max_memory_bytes, "cpu_seconds": accounted.cpu_seconds}
    base = accounted if accounted.array_task_count > job.array_task_count else job
    files = {"standard_output": job.standard_output, "standard_error": job.standard_error}
    files = {} if base.standard_output else files  # slurmdbd of 22.05 knows none
    known = {**measured, **files, "comment": job.comment, "name": job.name or accounted.name}
    return base.model_copy(update=known)


def find_earliest_submissions(records: Iterable[OpenJob]) -> dict[int, datetime]:
    """Return by job id the time before which no task of the job can have been submitted."""
    earliest: dict[int, datetime] = {}
    for record in records:
        at = record.earliest_submission
        earliest[record.slurm_job_id] = min(at, earliest.get(record.slurm_job_id, at))
    return earliest
