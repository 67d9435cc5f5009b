"""Makes sense of slurmrestd's answers: what is proof, what is a refusal, and what says nothing."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob, one_job
from app.slurm import reading
from app.slurm.connection import Reply

logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")

_NO_CONTROLLER = 1800
_LEADING_ID = re.compile(r"\d+")


def raw_jobs(reply: Reply) -> list[dict[str, Any]]:
    """The jobs of a good answer. An empty list in a bad one is no proof that a job is gone."""
    jobs = reply.body.get("jobs")
    if reply.status == 200 and not reply.errors() and isinstance(jobs, list):
        return jobs
    words = [words for _, words in reply.errors()] or [f"status {reply.status}"]
    raise SlurmUnavailable(f"slurmctld does not answer: {words[0]}")


def controller_time(reply: Reply) -> datetime:
    """Return slurmctld's time when it made this answer to `diag`, in whole seconds that have begun.

    Every release from 22.05 to 26.05 tells it as `req_time`; none sends a `Date` header.

    Raises:
        SlurmUnavailable: the answer does not tell it.
    """
    statistics = reply.body.get("statistics")
    seconds = reading.number(statistics.get("req_time")) if isinstance(statistics, dict) else None
    if reply.status != 200 or not seconds:
        words = [words for _, words in reply.errors()] or [f"slurmrestd answered {reply.status}"]
        raise SlurmUnavailable(f"slurmctld does not tell its time: {words[0]}")
    return datetime.fromtimestamp(seconds, UTC)


def is_unchanged(reply: Reply) -> bool:
    if reply.status == 304:
        return True
    warnings = [str(item.get("description")) for item in reply.body.get("warnings") or []]
    return reply.status == 200 and any("No job changes" in warning for warning in warnings)


def read_jobs(
    items: Iterable[dict[str, Any]], read: Callable[[reading.Raw], SlurmJob] = reading.controller_job
) -> list[SlurmJob]:
    """A job that cannot be read is logged and left out, so that it does not hide the others."""
    jobs = []
    for raw in items:
        try:
            jobs.append(read(raw))
        except (SlurmMisbehaved, LookupError, TypeError, ValueError) as error:
            logger.warning("job %s: %s", raw.get("job_id"), error)
    return jobs


def said_of(wanted: Sequence[int], items: Sequence[dict[str, Any]]) -> dict[int, SlurmJob | None]:
    """Each of the `wanted` jobs as slurmctld describes it among `items`, None for one that it does not name.

    One that it names, but not in a form that can be read, is left out: nothing is known of it.
    """
    found = by_id(read_jobs(items), wanted)
    named = {reading.number(raw.get(key)) for raw in items for key in ("job_id", "array_job_id")}
    return {job_id: found.get(job_id) for job_id in wanted if job_id in found or job_id not in named}


def states_of(items: Iterable[Mapping[str, Any]]) -> list[tuple[int | None, JobState | None]]:
    """Return id and state of each job in a list of states; None for what cannot be read, which is logged."""
    return [
        (_readable(item, "job_id", _leading_id), _readable(item, "state", reading.state)) for item in items
    ]


def _readable(item: Mapping[str, Any], key: str, read: Callable[[Any], _Value]) -> _Value | None:
    try:
        return read(item[key])
    except (SlurmMisbehaved, LookupError, TypeError, ValueError) as error:
        logger.warning(
            "the %s of job %s in a list of states cannot be read: %s", key, item.get("job_id"), error
        )
        return None


def _leading_id(written: object) -> int:
    """Of "123"; of "123_4" and "123_[5-9]", tasks of an array, whose last task keeps the array's own id; of
    "123+1", a part of a heterogeneous job."""
    found = _LEADING_ID.match(str(written))
    if found is None:
        raise ValueError("this is no job id")
    return int(found[0])


def by_id(jobs: Iterable[SlurmJob], wanted: Iterable[int]) -> dict[int, SlurmJob]:
    """Return those of the `wanted` jobs that are among `jobs`; an array is one job, merged from its tasks.

    slurmdbd lists each run of a requeued job: the one that was submitted last counts.
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
            found[job_id] = one_job(job_id, arrays[job_id])
        elif job_id in single:
            found[job_id] = single[job_id]
    return found


def _submitted(job: SlurmJob) -> float:
    return job.submit_time.timestamp() if job.submit_time else 0.0


def warnings(reply: Reply) -> list[str]:
    """Slurm's remarks on a job that it took; up to v0.0.38 they stand among the errors."""
    remarks = [words for _, words in reply.errors()]
    remarks += [str(item.get("description")) for item in reply.body.get("warnings") or []]
    remarks.append(str(reply.body.get("job_submit_user_msg") or ""))
    return [f"Slurm: {remark}" for remark in dict.fromkeys(remarks) if remark]


def submission_failure(reply: Reply) -> Exception:
    """Why there is no job id: a refusal is only what Slurm clearly says, all else may have worked."""
    errors = [(number, words) for number, words in reply.errors() if number > 0]
    if any(number == _NO_CONTROLLER for number, _ in errors):
        return SlurmUnavailable("slurmctld does not answer; nothing was submitted")
    if refusals := reply.refusals():
        return SlurmRefused(f"Slurm refused the job: {refusals[-1]}")
    if reply.status == 404:
        return SlurmUnavailable("slurmrestd no longer offers the version it did; nothing was submitted")
    if 400 <= reply.status < 500:
        words = [words for _, words in reply.errors()] or [reply.text.strip()[:200]]
        return SlurmRefused(f"Slurm refused the job: {words[0]}")
    return SlurmAmbiguous(f"slurmrestd answered {reply.status} without saying whether there is a job")
