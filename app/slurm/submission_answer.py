"""Interpret the answer to a submission: there is a job, there is none, or there may be one."""

from app.errors import (
    RefusalWithoutReason,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
)
from app.models.rules import MAX_JOB_ID
from app.slurm.reply import Reply

_NO_CONTROLLER = 1800
# The beginning of a warning that slurmrestd sends once with it and once without it (24.11, 26.05).
_RETURN_CODE = "Job submission resulted in non-zero return code: "
# Statuses of a request that was not passed on, and that may succeed later.
_TRY_LATER = frozenset({425, 429})
_TOO_LARGE = frozenset({413, 414, 431})
# Statuses of a request that was not passed on. 403 is not one of them: a filter may also block the answer.
_NOT_PASSED_ON = frozenset({400, 401, 405, 407, 411, 415, 417, 421, 422, 426})


def read_job_id(reply: Reply) -> int | None:
    """Return the id of the submitted job; None if the answer has no valid id."""
    job_id = reply.body.get("job_id")
    is_id = isinstance(job_id, int) and not isinstance(job_id, bool) and 0 < job_id <= MAX_JOB_ID
    return job_id if reply.status == 200 and is_id else None


def read_warnings(reply: Reply) -> list[str]:
    """Return Slurm's warnings about an accepted job, each once; up to v0.0.38 they are among the errors."""
    warnings = [words.removeprefix(_RETURN_CODE) for words in reply.warnings()]
    remarks = [*(words for _, words in reply.errors()), *warnings, *_user_message(reply)]
    return [f"Slurm: {remark}" for remark in dict.fromkeys(remarks) if remark]


def _user_message(reply: Reply) -> list[str]:
    """Return the message of a job_submit plugin to the user, if there is one."""
    message = reply.body.get("job_submit_user_msg")
    return [message] if message and isinstance(message, str) else []


def make_submission_error(reply: Reply) -> SlurmProxyError:
    """Return the error for a submission without a job id.

    Only a clear refusal of Slurm is a SlurmRefused. After an answer that proves nothing, a job may exist.
    """
    numbers = {number for number, _ in reply.errors()}
    answer = f"slurmrestd, or a proxy in front of it, answered {reply.complaint()}"
    if _NO_CONTROLLER in numbers:
        return SlurmUnavailable("slurmctld does not answer; nothing was submitted")
    if reply.status == 200 and reply.body.get("job_id", 0) != 0:
        return SlurmAmbiguous("slurmrestd answered with a job id that cannot be read")
    if refusals := reply.refusals():
        return SlurmRefused(f"Slurm refused the job: {'; '.join([refusals[-1], *_user_message(reply)])}")
    if reply.status == 404:
        return SlurmUnavailable("slurmrestd no longer offers the version it did; nothing was submitted")
    if reply.status in _TRY_LATER:
        return SlurmUnavailable(f"{answer}; nothing was submitted")
    if reply.status in _TOO_LARGE:
        return SlurmRefused(f"the job is too large to be submitted: {answer}")
    if reply.status in _NOT_PASSED_ON:
        if numbers:
            return SlurmRefused(f"Slurm refused the job: {reply.complaint()}")
        return SlurmMisbehaved(f"{answer}; nothing was submitted")
    if reply.is_unspecified_error:
        return RefusalWithoutReason("; ".join(["Slurm gave no reason", *_user_message(reply)]))
    return SlurmAmbiguous(f"slurmrestd answered {reply.status} without saying whether there is a job")
