"""Find the job of a submission for which Slurm gave no usable answer."""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta

from app.errors import RefusalWithoutReason, SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.lifecycle.job_identity import find_tagged, make_tag
from app.lifecycle.untagged_jobs import may_be_job_of
from app.models.job import SlurmJob
from app.models.record import TaskRecord
from app.slurm.client import SlurmClient

logger = logging.getLogger(__name__)

_MIN_SEARCH_SECONDS = 1.0  # with less time left, a search for a job cannot succeed
_REFUSED_BY_SITE = (
    "the site's submit rules (a job_submit plugin) may not allow it; ask the cluster's administrators"
)


def find_submitted_job(
    slurm: SlurmClient,
    record: TaskRecord,
    error: SlurmAmbiguous,
    submission_life: timedelta,
    seconds: float,
) -> int:
    """Return the id of the job that an ambiguous submission made.

    Args:
        slurm: The client.
        record: The reservation.
        error: The error of the submission.
        submission_life: How long after a reservation its request may still become a job.
        seconds: The time that is left.

    Raises:
        SlurmRefused: Slurm answered with an error without a reason, and slurmctld has no such job.
        SlurmAmbiguous: It is still not known whether there is a job.
    """
    if seconds <= _MIN_SEARCH_SECONDS:
        raise make_unknown_error(record.uuid)
    try:
        jobs = _search(slurm, record, error, timeout=seconds / 2)
    except (SlurmUnavailable, SlurmMisbehaved) as fault:
        logger.warning("task %s: %s", record.uuid, fault)
        raise make_unknown_error(record.uuid) from fault
    job = find_tagged(record, jobs)
    if job is not None:
        return job.array_job_id or job.job_id
    if isinstance(error, RefusalWithoutReason) and not _is_any_likely(record, jobs, submission_life):
        # slurmctld answered the submission before it was searched: it would have shown the job
        raise SlurmRefused(f"Slurm refused the job: {error}; {_REFUSED_BY_SITE}")
    raise make_unknown_error(record.uuid)


def make_unknown_error(uuid: str) -> SlurmAmbiguous:
    """Return the error for a submission whose outcome is not known yet."""
    return SlurmAmbiguous(
        f"it is not known yet whether Slurm accepted task {uuid}: ask GET /monitor/task_uuid/{uuid} later,"
        " and do not submit the task under another uuid before that"
    )


def _search(
    slurm: SlurmClient, record: TaskRecord, error: SlurmAmbiguous, timeout: float
) -> Sequence[SlurmJob]:
    if isinstance(error, RefusalWithoutReason):
        return slurm.read_recent_jobs(record.created_at, timeout=timeout)
    tags = [make_tag(record.uuid)]
    return slurm.search([record.slurm_username], record.created_at, tags, timeout=timeout).jobs()


def _is_any_likely(record: TaskRecord, jobs: Iterable[SlurmJob], submission_life: timedelta) -> bool:
    """Return whether a job without a tag may be the record's."""
    earliest = record.created_at - submission_life  # which is longer than any skew of clocks
    latest = record.created_at + 2 * submission_life
    return any(may_be_job_of(record, job, earliest, latest) for job in jobs)
