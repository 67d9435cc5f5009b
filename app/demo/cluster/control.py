"""The routes of slurmrestd that change jobs, for the local cluster.

Each returns the body of an answer with status 200, or raises Reply.
"""

import signal
from typing import Any

from app.demo.cluster.http_server import Reply
from app.demo.cluster.job import LocalJob
from app.demo.cluster.queue import LocalQueue
from app.demo.cluster.wire import make_answer, make_error, make_kill_error

SERVICE_USERS = frozenset({"root", "slurm"})
_DENIED = (2002, "Access/permission denied")
_UNKNOWN = (2017, "Invalid job id specified")
_ENDED = (2021, "Job/step already completing or completed")


def find_local_job(queue: LocalQueue, text: str) -> LocalJob:
    """Return the job with this id, if the controller still knows the job.

    Raises:
        Reply: There is no such job.
    """
    if not text.isdigit():
        raise Reply(422, make_answer(errors=[make_error(9202, f"Unable to parse job id {text}")]))
    for job in queue.recent():
        if job.job_id == int(text):
            return job
    unknown = make_error(*_UNKNOWN, f"Unable to query JobId={text}")
    raise Reply(404, make_answer(jobs=[], errors=[unknown]))


def cancel_local_job(
    queue: LocalQueue, user: str, text: str, signal_name: str | None = None
) -> dict[str, Any]:
    """Cancel a job, or send a signal.

    Raises:
        Reply: There is no such job.
    """
    job = find_local_job(queue, text)
    if signal_name is not None and not job.state.is_final and _is_owner(user, job):
        refused = _send_signal(queue, job, signal_name)
    else:
        refused = _cancel(queue, user, job)
    return make_answer(status=[make_kill_error(text, *refused)] if refused else [])


def cancel_local_jobs(queue: LocalQueue, user: str, body: dict[str, Any]) -> dict[str, Any]:
    """Cancel a list of jobs, and list those that were not cancelled."""
    known = {str(job.job_id): job for job in queue.recent()}
    status = []
    for text in map(str, body.get("jobs") or ()):
        refused = _cancel(queue, user, known[text]) if text in known else _UNKNOWN
        if refused:
            status.append(make_kill_error(text, *refused))
    return make_answer(status=status)


def update_local_job(queue: LocalQueue, user: str, text: str, body: dict[str, Any]) -> dict[str, Any]:
    """Hold or release a job.

    Raises:
        Reply: There is no such job, it is another user's, or it has ended.
    """
    job = find_local_job(queue, text)
    if not _is_owner(user, job):
        raise _refuse(2010, "Invalid user id")
    if job.state.is_final:
        raise _refuse(2084, "Job has already finished")
    if "hold" in body:
        is_admin = user in SERVICE_USERS
        if job.is_held_by_admin and not is_admin and not body["hold"]:
            raise _refuse(*_DENIED)
        queue.set_hold(job, hold=bool(body["hold"]), by_admin=is_admin)
    return make_answer()


def requeue_local_jobs(queue: LocalQueue, user: str, body: dict[str, Any]) -> dict[str, Any]:
    """Requeue each job of a list.

    Raises:
        Reply: One of them cannot be requeued.
    """
    for text in map(str, body.get("jobs") or ()):
        job = find_local_job(queue, text)
        if not _is_owner(user, job):
            raise _refuse(*_DENIED)
        if not job.may_requeue:
            raise _refuse(2037, "Requested operation is presently disabled")
        if not queue.requeue(job):
            raise _refuse(2024, "Job is pending execution")
    return make_answer(status=[])


def _is_owner(user: str, job: LocalJob) -> bool:
    return user == job.account.pw_name or user in SERVICE_USERS


def _cancel(queue: LocalQueue, user: str, job: LocalJob) -> tuple[int, str] | None:
    """Cancel a job; return number and text of Slurm's error if it is refused."""
    if not _is_owner(user, job):
        return _DENIED
    if job.is_ending:
        return _ENDED
    queue.cancel(job)
    return None


def _send_signal(queue: LocalQueue, job: LocalJob, name: str) -> tuple[int, str] | None:
    name = name.upper().removeprefix("SIG")
    number = int(name) if name.isdigit() else getattr(signal, f"SIG{name}", signal.SIGKILL)
    return None if queue.signal(job, int(number)) else (2020, "Job can not be altered now, try again later")


def _refuse(number: int, words: str) -> Reply:
    return Reply(422, make_answer(errors=[make_error(number, words)]))
