"""Interpret the answers of slurmrestd that describe jobs: an answer that is an error proves nothing."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from app.errors import (
    SlurmMisbehaved,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.models.array_merging import merge_array_tasks
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm import reading
from app.slurm.reply import Reply
from app.slurm.values import Raw, as_number, as_object

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(600, by_message=True))  # every poll reads the same unreadable job again

_Value = TypeVar("_Value")

# Exceptions that unexpected data of one job may raise; the other jobs are read nevertheless.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    SlurmMisbehaved,
    TypeError,
    ValueError,
)
_STATES = dict(JobState.__members__)
_LEADING_ID = re.compile(r"\d+")


def require_jobs(reply: Reply) -> list[dict[str, Any]]:
    """Return the jobs of a successful answer.

    An empty list in an error answer does not prove that a job is gone.

    Raises:
        SlurmUnavailable: The answer is an error, or has no list of jobs.
    """
    if reply.status != 200 or reply.errors():
        raise SlurmUnavailable(f"slurmctld does not answer: {reply.complaint()}")
    return require_job_list(reply)


def require_job_list(reply: Reply) -> list[dict[str, Any]]:
    """Return the items of `jobs`, with {} for an item that is no object, which may stand for any job.

    Raises:
        SlurmUnavailable: The answer has no such list, or none of its items is an object.
    """
    jobs = reply.body.get("jobs")
    if not isinstance(jobs, list):
        fault = reply.fault or "it has no list of jobs"
        raise SlurmUnavailable(f"slurmrestd's answer cannot be read: {fault}")
    items = [item if isinstance(item, dict) else {} for item in jobs]
    if items and not any(items):
        raise SlurmUnavailable("slurmrestd's answer cannot be read: its list has no jobs")
    return items


def read_controller_time(reply: Reply) -> datetime:
    """Return the time of slurmctld in an answer to `diag`, rounded down to whole seconds.

    Every release from 22.05 to 26.05 reports it as `req_time`; none sends a `Date` header.

    Raises:
        SlurmUnavailable: The answer does not report it.
    """
    moment = reading.read_time(as_object(reply.body.get("statistics")).get("req_time"))
    if reply.status != 200 or moment is None:
        raise SlurmUnavailable(f"slurmctld does not report its time: {reply.complaint()}")
    return moment


def is_unchanged(reply: Reply) -> bool:
    """Return whether the answer says that no job has changed."""
    if reply.status == 304:
        return True
    return reply.status == 200 and any("No job changes" in warning for warning in reply.warnings())


def read_jobs(
    items: Iterable[dict[str, Any]], read: Callable[[Raw], SlurmJob] = reading.read_controller_job
) -> list[SlurmJob]:
    """Return the jobs that can be read; a job that cannot be read is logged, and hides no other."""
    jobs = []
    for raw in items:
        try:
            jobs.append(read(raw))
        except UNREADABLE as error:
            logger.warning("job %s: %s", raw.get("job_id"), error)
    return jobs


def require_jobs_of_users(
    usernames: Collection[str],
    items: Iterable[dict[str, Any]],
    read: Callable[[Raw], SlurmJob],
    owner: Callable[[Raw], str],
) -> list[SlurmJob]:
    """Return the jobs of these users. Jobs of other users need not be readable.

    Raises:
        SlurmMisbehaved: A job that may be one of these users' cannot be read.
    """
    jobs = []
    for raw in items:
        try:
            if raw and owner(raw) not in usernames:
                continue
            jobs.append(read(raw))
        except UNREADABLE as error:
            raise SlurmMisbehaved(f"job {raw.get('job_id')} cannot be read: {error}") from error
    return jobs


def jobs_by_id_or_none(wanted: Sequence[int], items: Sequence[dict[str, Any]]) -> dict[int, SlurmJob | None]:
    """Return each of the `wanted` jobs as slurmctld describes it, and None for a job that is not in `items`.

    A job that is listed but cannot be read is left out, because nothing is known of it. An item that names no
    job may be any of the missing jobs, which are then left out, too.
    """
    found = merge_by_id(read_jobs(items), wanted)
    named = {as_number(raw.get(key)) for raw in items for key in ("job_id", "array_job_id")}
    return {
        job_id: found.get(job_id)
        for job_id in wanted
        if job_id in found or (all(items) and job_id not in named)
    }


def read_states(items: Iterable[Mapping[str, Any]]) -> list[tuple[int | None, JobState | None]]:
    """Return id and state of each job in a list of states; None for an unreadable value, which is logged."""
    return [_read_listed(item) for item in items]


def _read_listed(item: Mapping[str, Any]) -> tuple[int | None, JobState | None]:
    """Return id and state of one job: usually a number, and one word, which are read at little cost."""
    try:
        (word,) = item["state"]
        if (written := item["job_id"]).isdecimal():
            return int(written), _STATES[word]
    except UNREADABLE:
        pass
    return _readable(item, "job_id", _leading_id), _readable(item, "state", reading.read_state)


def _readable(item: Mapping[str, Any], key: str, read: Callable[[Any], _Value]) -> _Value | None:
    try:
        return read(item[key])
    except UNREADABLE as error:
        logger.warning(
            "the %s of job %s in a list of states cannot be read: %s", key, item.get("job_id"), error
        )
        return None


def _leading_id(written: object) -> int:
    """Return the number that an id begins with, such as "123", "123_4", "123_[5-9]" or "123+1".

    The second and third are tasks of an array, whose last task has the array's own id. The fourth is a part
    of a heterogeneous job.

    Raises:
        ValueError: The text does not begin with a number.
    """
    found = _LEADING_ID.match(str(written))
    if found is None:
        raise ValueError("this is no job id")
    return int(found[0])


def merge_by_id(jobs: Iterable[SlurmJob], wanted: Iterable[int]) -> dict[int, SlurmJob]:
    """Return the `wanted` jobs that are among `jobs`; an array is one job, merged from its tasks.

    slurmdbd lists each run of a requeued job: the run that was submitted last counts.
    """
    arrays: dict[int, list[SlurmJob]] = {}
    single: dict[int, SlurmJob] = {}
    for job in jobs:
        known = single.get(job.job_id)
        if known is None or _submitted(job) >= _submitted(known):
            single[job.job_id] = job
    for job in single.values():
        if job.array_job_id is not None:
            arrays.setdefault(job.array_job_id, []).append(job)
    found = {}
    for job_id in wanted:
        if job_id in arrays:
            found[job_id] = merge_array_tasks(job_id, arrays[job_id])
        elif job_id in single:
            found[job_id] = single[job_id]
    return found


def _submitted(job: SlurmJob) -> float:
    return job.submit_time.timestamp() if job.submit_time else 0.0
