"""Reads the jobs that slurmctld and slurmdbd describe, in every form that slurmrestd writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.errors import SlurmMisbehaved
from app.job_state import JobState
from app.models.array_tasks import mask_of_hex, mask_of_index, mask_of_list
from app.models.job import SlurmJob
from app.slurm.job_files import accounting_files, controller_files

Raw = Mapping[str, Any]
_NO_TIME = 2**32 - 2  # slurmdbd of 24.11 and 26.05 for the start of a job that never began
_MAX_MEMORY_MB = 2**40  # above it Slurm has set a flag bit: the figure is for a CPU


_NOTHING = ("", "None", "None assigned", "(null)")


def number(value: object) -> int | None:
    """A number, plain or as {set, infinite, number}; None where it is not set."""
    if isinstance(value, Mapping):
        if not value.get("set") or value.get("infinite"):
            return None
        value = value.get("number")
    return value if isinstance(value, int) else None


def state(written: object) -> JobState:
    try:
        return JobState.read(written if isinstance(written, str) else list(written))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise SlurmMisbehaved(f"slurmrestd reports a job state that Slurm does not have: {error}") from error


def controller_job(raw: Raw) -> SlurmJob:
    """A job from `/slurm/…/job/{id}` or `/slurm/…/jobs`."""
    job_state = state(raw.get("job_state"))
    nodes = _said(raw.get("nodes"))
    # Of a job that never began Slurm gives the end as the start, too.
    never_ran = job_state.is_final and not job_state.is_success and nodes is None
    exit_code, signal = _ending(raw.get("exit_code")) if job_state.is_final else (None, None)
    ended = job_state.is_final or job_state is JobState.COMPLETING
    has_begun = not job_state.is_waiting and not never_ran
    start = _moment(raw.get("start_time")) if has_begun else None
    array_id = number(raw.get("array_job_id")) or None
    output, error = controller_files(raw, array_id, number(raw.get("array_task_id")))
    return SlurmJob(
        job_id=int(raw["job_id"]),
        username=raw.get("user_name") or "",
        job_state=job_state,
        reason=_said(raw.get("state_reason")),
        exit_code=exit_code or None if never_ran else exit_code,
        signal=signal,
        name=_said(raw.get("name")),
        partition=_said(raw.get("partition")),
        nodes=nodes,
        cpus=number(raw.get("cpus")),
        memory_mb=_memory(raw.get("memory_per_node")),
        time_limit_minutes=number(raw.get("time_limit")),
        submit_time=_moment(raw.get("submit_time")),
        start_time=start,
        end_time=_moment(raw.get("end_time")) if ended else None,  # before that it is a prediction
        suspended_seconds=_suspended(raw, start),
        working_directory=_said(raw.get("current_working_directory")),
        standard_output=output,
        standard_error=error,
        comment=raw.get("comment") or None,
        restarts=number(raw.get("restart_cnt")) or 0,
        array_job_id=array_id,
        task_mask=_task_mask(raw.get("array_task_id"), mask_of_list(str(raw.get("array_task_string") or ""))),
    )


def accounting_job(raw: Raw) -> SlurmJob:
    """A job from `/slurmdb/…`."""
    job_state = state((raw.get("state") or {}).get("current"))
    exit_code, signal = _ending(raw.get("exit_code")) if job_state.is_final else (None, None)
    if not job_state.is_success and (exit_code, signal) == (0, None):
        exit_code = None  # slurmdbd of 22.05 says 0 for every job, newer ones for CANCELLED and TIMEOUT
    nodes = _said(raw.get("nodes"))
    has_begun = nodes is not None or not job_state.is_final or job_state.is_success
    times, array = raw.get("time") or {}, raw.get("array") or {}
    array_id = number(array.get("job_id")) or None
    output, error = accounting_files(raw, array_id, number(array.get("task_id")))
    steps = raw.get("steps") or []
    return SlurmJob(
        job_id=int(raw["job_id"]),
        username=raw.get("user") or (raw.get("association") or {}).get("user") or "",
        job_state=job_state,
        reason=_said((raw.get("state") or {}).get("reason")),
        exit_code=exit_code,
        signal=signal,
        name=_said(raw.get("name")),
        partition=_said(raw.get("partition")),
        nodes=nodes,
        cpus=number((raw.get("required") or {}).get("CPUs")),
        memory_mb=_required_memory(raw),
        time_limit_minutes=number(times.get("limit")),
        submit_time=_moment(times.get("submission")),
        start_time=_moment(times.get("start")) if has_begun else None,
        end_time=_moment(times.get("end")) if job_state.is_final else None,
        suspended_seconds=number(times.get("suspended")) or 0,
        max_memory_bytes=max(map(_step_memory, steps), default=0) or None,
        cpu_seconds=sum(map(_step_cpu_seconds, steps)) or None,
        working_directory=_said(raw.get("working_directory")),
        standard_output=output,
        standard_error=error,
        comment=(raw.get("comment") or {}).get("job") or None,
        array_job_id=array_id,
        task_mask=_task_mask(array.get("task_id"), mask_of_hex(str(array.get("task") or ""))),
    )


def whose_controller_job(raw: Raw) -> SlurmJob:
    """Which job it is; its state does not matter, and may be one that nobody can read."""
    return controller_job({**raw, "job_state": JobState.UNKNOWN})


def whose_accounting_job(raw: Raw) -> SlurmJob:
    return accounting_job({**raw, "state": {"current": JobState.UNKNOWN}})


def _task_mask(index: object, waiting: int) -> int:
    """Return the mask of one task of an array, or of those that have no job id of their own yet."""
    own = number(index)
    return waiting if own is None else mask_of_index(own)


def _said(value: object) -> str | None:
    """Slurm's word, without its several ways of saying nothing."""
    return value if isinstance(value, str) and value not in _NOTHING else None


def _moment(value: object) -> datetime | None:
    seconds = number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds and seconds < _NO_TIME else None


def _suspended(raw: Raw, start: datetime | None) -> float:
    """Return for how many seconds the job was suspended before it last ran on.

    `suspend_time` is when it was last suspended or resumed, `pre_sus_time` how long it had run by then.
    """
    last = _moment(raw.get("suspend_time"))
    if last is None or start is None or last < start:
        return 0
    return max(0.0, (last - start).total_seconds() - (number(raw.get("pre_sus_time")) or 0))


def _memory(value: object) -> int | None:
    megabytes = number(value)
    return megabytes if megabytes and megabytes < _MAX_MEMORY_MB else None


def _required_memory(raw: Raw) -> int | None:
    required = raw.get("required") or {}
    return _memory(required.get("memory_per_node", required.get("memory")))


def _ending(value: object) -> tuple[int | None, int | None]:
    """Exit code and signal, from a wait status (up to v0.0.38) or an object."""
    if isinstance(value, int):
        return (None, value & 0x7F) if value & 0x7F else (value >> 8 & 0xFF, None)
    if not isinstance(value, Mapping):
        return None, None
    killed_by = value.get("signal") or {}
    signal = number(killed_by.get("id")) or number(killed_by.get("signal_id"))
    return (None, signal) if signal else (number(value.get("return_code")), None)


def _step_memory(step: Raw) -> int:
    peaks = ((step.get("tres") or {}).get("requested") or {}).get("max") or []
    return max((item.get("count") or 0 for item in peaks if item.get("type") == "mem"), default=0)


def _step_cpu_seconds(step: Raw) -> float:
    total = (step.get("time") or {}).get("total") or {}
    return float((total.get("seconds") or 0) + (total.get("microseconds") or 0) / 1e6)
