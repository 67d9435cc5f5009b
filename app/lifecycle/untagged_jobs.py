"""Find out whether a job without a tag may be the job of a task.

slurmdbd keeps comments only with AccountingStoreFlags=job_comment, and the submit rules of a site may replace
them.
"""

import re
from datetime import datetime

from app.models.job import SlurmJob
from app.models.output_files import choose_job_name
from app.models.record import JOB_TAG, TaskRecord

_QUOTES = re.compile(r"[\"'`\\\\]")
_SAFE_NAME = re.compile(r"[A-Za-z0-9 ._:@+=,/-]{1,60}")
_NAMELESS = "allocation"  # what slurmdbd calls a job that was submitted without a name
_KEPT_LENGTH = 60  # characters that survive where a text is cut off at 255 bytes


def may_be_job_of(record: TaskRecord, job: SlurmJob, earliest: datetime, latest: datetime) -> bool:
    """Return whether an untagged job may be the record's.

    User, name and folder must agree as far as they are known, and the job must have been submitted between
    `earliest` and `latest`.
    """
    name, cwd = _name_and_folder(record)
    return (
        job.username == record.slurm_username
        and not (job.comment or "").startswith(JOB_TAG)
        and (has_name_of(record, job) or not _is_stored_unchanged(name))
        and (job.working_directory is None or _are_alike(job.working_directory, cwd))
        and job.submit_time is not None
        and earliest <= job.submit_time <= latest
    )


def _name_and_folder(record: TaskRecord) -> tuple[str, str]:
    """Return name and folder of the submitted job, unchecked: an earlier version may have checked less."""
    return choose_job_name(record.full_task), record.task["cwd"]


def has_name_of(record: TaskRecord, job: SlurmJob) -> bool:
    """Return whether the job's name agrees with the record.

    An earlier version submitted tasks without a `job_name` as jobs without a name.
    """
    name, _ = _name_and_folder(record)
    may_be_nameless = not record.full_task["slurm"].get("job_name") and job.name == _NAMELESS
    return job.name is None or may_be_nameless or _are_alike(name, job.name)


def _is_stored_unchanged(name: str) -> bool:
    """Return whether slurmdbd has no reason to alter the text."""
    return _SAFE_NAME.fullmatch(name) is not None


def _are_alike(one: str, other: str) -> bool:
    """Return whether two texts may have been equal before slurmdbd altered quotes and cut off long texts."""
    one, other = _QUOTES.sub("", one), _QUOTES.sub("", other)
    is_long = min(len(one), len(other)) >= _KEPT_LENGTH
    return one == other or (is_long and one[:_KEPT_LENGTH] == other[:_KEPT_LENGTH])
