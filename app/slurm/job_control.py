"""Ask Slurm to cancel, hold, release or requeue jobs, and interpret the answers of all API versions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, NamedTuple

from app.errors import NotSupported, SlurmAmbiguous, SlurmRefused, SlurmUnavailable
from app.models.job_action import JobAction
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.slurm.values import as_number, as_object

_DENIED = 2002
_NOT_FOUND = 2017
_CANCELLED_OR_ENDED = 2021
_PENDING = 2024
_DISABLED = 2037
_FINISHED = 2084


class JobOutcome(Enum):
    """Slurm's answer to a request about a job, where no error of this service fits."""

    DONE = auto()
    UNREPORTED = auto()  # done, but it is not reported whether anything was left to do
    UNKNOWN_JOB = auto()
    ENDED = auto()
    PENDING = auto()  # the job waits, so that it cannot be requeued
    DENIED = auto()  # only an administrator of the cluster may do this
    DISABLED = auto()  # the job was submitted so that it cannot be requeued


class _KillError(NamedTuple):
    """A job that was not cancelled, by its id or by that of a task of an array (`17_4`)."""

    step_id: str
    number: int
    words: str


_Meanings = Mapping[int, JobOutcome]

_OF_CANCEL = {_NOT_FOUND: JobOutcome.UNKNOWN_JOB, _CANCELLED_OR_ENDED: JobOutcome.ENDED}
_OF_HOLD = {_NOT_FOUND: JobOutcome.UNKNOWN_JOB, _FINISHED: JobOutcome.ENDED}
_OF_RELEASE = {**_OF_HOLD, _DENIED: JobOutcome.DENIED}
_OF_REQUEUE = {
    _NOT_FOUND: JobOutcome.UNKNOWN_JOB,
    _PENDING: JobOutcome.PENDING,
    _DISABLED: JobOutcome.DISABLED,
}


class JobControl:
    """Requests that change jobs, each with a token of the job's user. Thread-safe.

    Each raises SlurmRefused with Slurm's text for any other refusal, and SlurmUnavailable if it is not known
    whether Slurm did it. Repeating a request does no harm.
    """

    def __init__(self, session: Session, clock_skew: float) -> None:
        """Create the requests. `clock_skew`: seconds that this machine's clock may differ from Slurm's."""
        self._session = session
        self._clock_skew = clock_skew

    def offers_requeue(self) -> bool:
        """Return whether slurmrestd offers to requeue jobs."""
        return self._session.dialect().has_requeue

    def cancel(self, job_id: int, username: str) -> JobOutcome:
        """Cancel a job, or a whole array.

        v0.0.40 and v0.0.41 report neither an ended nor an unknown job: read the job before.
        """
        reply = self._send(
            JobAction.CANCEL, _name_jobs(job_id), SlurmRequest("DELETE", f"job/{job_id}", user=username)
        )
        outcome = _judge_cancellation(job_id, reply, _read_kill_errors(reply))
        if outcome is JobOutcome.DONE and not self._session.dialect().reports_ended_jobs:
            return JobOutcome.UNREPORTED
        return outcome

    def cancel_many(
        self, job_ids: Sequence[int], username: str, timeout: float | None = None
    ) -> dict[int, JobOutcome | SlurmRefused]:
        """Cancel jobs of one user with one request.

        Args:
            job_ids: The ids of the jobs, or of whole arrays.
            username: The user.
            timeout: Seconds that slurmrestd has to answer, instead of the configured time.

        Raises:
            NotSupported: The API version has no such request: cancel one job after the other.
            SlurmRefused: Slurm cancels none of the jobs.
        """
        if not self._session.dialect().has_bulk_cancellation:
            raise NotSupported("this cluster's release of Slurm cannot cancel several jobs with one request")
        body = {"jobs": [str(job_id) for job_id in job_ids]}
        request = SlurmRequest("DELETE", "jobs/", user=username, body=body, timeout=timeout)
        noun = _name_jobs(*job_ids)
        reply = self._send(JobAction.CANCEL, noun, request)
        _judge(JobAction.CANCEL, noun, reply, reply.errors(), {})
        errors = _read_kill_errors(reply)
        return {job_id: _find_outcome(job_id, reply, errors) for job_id in job_ids}

    def hold(self, job_id: int, username: str) -> JobOutcome:
        """Hold a job, or the tasks of an array that wait.

        A job that runs goes on, and is held once it is requeued.
        """
        return self._update(JobAction.HOLD, job_id, username, {"hold": True}, _OF_HOLD)

    def release(self, job_id: int, username: str) -> JobOutcome:
        """Release a job, or all held tasks of an array, as `scontrol release` does."""
        return self._update(JobAction.RELEASE, job_id, username, {"hold": False}, _OF_RELEASE)

    def requeue(self, job_id: int, username: str) -> JobOutcome:
        """Requeue a job that runs or has ended, or all such tasks of an array.

        The outcome is DONE if at least one task was requeued. Slurm lets the job wait for 121 s.
        """
        body = {"jobs": [str(job_id)]}
        reply = self._send(
            JobAction.REQUEUE, _name_jobs(job_id), self._timely("jobs/requeue", username, body)
        )
        tasks = _read_task_errors(reply)
        if reply.status == 200 and any(number == 0 for number, _ in tasks):
            return JobOutcome.DONE
        return _judge(JobAction.REQUEUE, _name_jobs(job_id), reply, [*reply.errors(), *tasks], _OF_REQUEUE)

    def _update(
        self, action: JobAction, job_id: int, username: str, body: dict[str, Any], meanings: _Meanings
    ) -> JobOutcome:
        reply = self._send(action, _name_jobs(job_id), self._timely(f"job/{job_id}", username, body))
        faults = reply.errors()
        # 22.05 answers so to each update of an array, which it carries out.
        if reply.status == 200 and faults and not any(number for number, _ in faults):
            return JobOutcome.UNREPORTED
        return _judge(action, _name_jobs(job_id), reply, faults, meanings)

    def _timely(self, path: str, username: str, body: dict[str, Any]) -> SlurmRequest:
        """Return a request whose token expires soon, because a late request could undo a newer action.

        With the default time-outs the token expires before a requeued job may start, which is after 121 s.
        So a late request requeues no job twice.
        """
        seconds = self._session.max_call_seconds + self._clock_skew
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        return SlurmRequest("POST", path, user=username, body=body, expires=expires)

    def _send(self, action: JobAction, noun: str, request: SlurmRequest) -> Reply:
        try:
            return self._session.send(request)
        except SlurmAmbiguous as error:
            raise _unknown_outcome(action, noun, str(error)) from error


def _name_jobs(*job_ids: int) -> str:
    """Return a noun for one job, or for several."""
    return f"job {job_ids[0]}" if len(job_ids) == 1 else f"these {len(job_ids)} jobs"


def _find_outcome(job_id: int, reply: Reply, errors: Sequence[_KillError]) -> JobOutcome | SlurmRefused:
    """Return the outcome for one of several jobs."""
    own = [error for error in errors if error.step_id.partition("_")[0] == str(job_id)]
    try:
        return _judge_cancellation(job_id, reply, own)
    except SlurmRefused as refused:
        return refused


def _judge_cancellation(job_id: int, reply: Reply, errors: Sequence[_KillError]) -> JobOutcome:
    """Return the outcome of a cancellation; an array is reported by those of its tasks that had ended.

    Raises:
        SlurmRefused: Slurm does not cancel the job.
        SlurmUnavailable: The answer is no answer of slurmctld.
    """
    faults = [*reply.errors(), *((error.number, error.words) for error in errors)]
    outcome = _judge(JobAction.CANCEL, _name_jobs(job_id), reply, faults, _OF_CANCEL)
    is_part = bool(errors) and all("_" in error.step_id for error in errors)
    return JobOutcome.UNREPORTED if outcome is JobOutcome.ENDED and is_part else outcome


def _judge(
    action: JobAction, noun: str, reply: Reply, faults: Sequence[tuple[int, str]], meanings: _Meanings
) -> JobOutcome:
    """Return the outcome that an answer reports.

    Raises:
        SlurmRefused: Slurm refused for a reason that is not one of `meanings`.
        SlurmUnavailable: The answer is no answer of slurmctld.
    """
    for number, _ in faults:
        if number in meanings:
            return meanings[number]
    if reply.status == 200 and not faults and not reply.fault:
        return JobOutcome.DONE
    if reply.refusals() or (faults and reply.status in (200, 400, 422)):
        words = "; ".join(words for _, words in faults)
        raise SlurmRefused(f"Slurm does not {action} {noun}: {words}")
    # 24.11 and 26.05 answer with 500 or 403 while slurmctld is down; a proxy has statuses of its own.
    raise _unknown_outcome(action, noun, f"slurmrestd answered {reply.complaint()}")


def _unknown_outcome(action: JobAction, noun: str, reason: str) -> SlurmUnavailable:
    words = f"it is unknown whether Slurm has {action.participle} {noun}; repeating the request does no harm"
    return SlurmUnavailable(f"{words}: {reason}")


def _read_kill_errors(reply: Reply) -> list[_KillError]:
    """Return the jobs, and the tasks of arrays, that were not cancelled."""
    items = [as_object(item) for item in _flatten(reply.body.get("status"))]
    faults = [(item, as_object(item.get("error"))) for item in items]
    return [
        _KillError(str(item.get("step_id")), number, str(fault.get("string") or "no reason given"))
        for item, fault in faults
        if (number := as_number(fault.get("code")) or 0)
    ]


def _read_task_errors(reply: Reply) -> list[tuple[int, str]]:
    """Return the number and the text of the error of each part of an array; 0 for a requeued part.

    26.05 lists the parts of each job in a list of its own.
    """
    return [
        (as_number(item.get("error_code")) or 0, str(item.get("error")))
        for item in map(as_object, _flatten(reply.body.get("status")))
        if item
    ]


def _flatten(listed: object) -> Iterator[object]:
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, list):
            yield from item
        else:
            yield item
