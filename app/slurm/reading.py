"""Read the jobs that slurmctld and slurmdbd describe, in the forms of all API versions."""

from collections.abc import Mapping
from datetime import UTC, datetime

from app.errors import SlurmMisbehaved
from app.job_state import JobState
from app.models.array_indices import parse_hex_mask, parse_index_list
from app.models.job import SlurmJob
from app.models.rules import MAX_JOB_ID
from app.slurm.job_files import find_accounting_files, find_controller_files
from app.slurm.values import Raw, as_number, as_object, as_text

_NO_TIME = 2**32 - 2  # the start of a job that never began, in slurmdbd of 24.11 and 26.05
_MAX_MEMORY_MB = 2**40  # above it Slurm has set a flag bit: the number is for a CPU

_NOTHING = ("", "None", "None assigned", "(null)")


def _read_job_id(value: object) -> int:
    job_id = int(value) if isinstance(value, str) and len(value) <= len(str(MAX_JOB_ID)) else as_number(value)
    if job_id is None or not 0 < job_id <= MAX_JOB_ID:
        raise SlurmMisbehaved("slurmrestd reports a job without a valid id")
    return job_id


def read_state(written: object) -> JobState:
    """Return the state that slurmrestd wrote, as a word or as a list of words.

    Raises:
        SlurmMisbehaved: Slurm has no such state.
    """
    try:
        return JobState.read(written if isinstance(written, str) else list(written))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise SlurmMisbehaved(f"slurmrestd reports a job state that Slurm does not have: {error}") from error


def read_controller_job(raw: Raw) -> SlurmJob:
    """Return a job from `/slurm/…/job/{id}` or `/slurm/…/jobs`."""
    job_state = read_state(raw.get("job_state"))
    nodes = _text_or_none(raw.get("nodes"))
    # For a job that never began, Slurm reports its end as its start, too.
    never_ran = job_state.is_final and not job_state.is_success and nodes is None
    exit_code, signal = _read_ending(raw.get("exit_code")) if job_state.is_final else (None, None)
    ended = job_state.is_final or job_state is JobState.COMPLETING
    has_begun = not job_state.is_waiting and not never_ran
    start = read_time(raw.get("start_time")) if has_begun else None
    array_id = as_number(raw.get("array_job_id")) or None
    index = as_number(raw.get("array_task_id"))
    mask = parse_index_list(as_text(raw.get("array_task_string")) or "") if index is None else 0
    waiting = (mask.bit_count() or 1) if job_state.is_waiting else 0
    restarts = as_number(raw.get("restart_cnt")) or 0
    output, error = find_controller_files(raw, array_id, index)
    return SlurmJob(
        job_id=_read_job_id(raw["job_id"]),
        username=read_controller_owner(raw),
        job_state=job_state,
        reason=_text_or_none(raw.get("state_reason")),
        exit_code=exit_code or None if never_ran else exit_code,
        signal=signal,
        name=_text_or_none(raw.get("name")),
        partition=_text_or_none(raw.get("partition")),
        nodes=nodes,
        cpus=as_number(raw.get("cpus")),
        memory_mb=_memory_mb(raw.get("memory_per_node")),
        time_limit_minutes=as_number(raw.get("time_limit")),
        submit_time=read_time(raw.get("submit_time")),
        start_time=start,
        end_time=read_time(raw.get("end_time")) if ended else None,  # before that it is a prediction
        suspended_seconds=_suspended_seconds(raw, start),
        working_directory=_text_or_none(raw.get("current_working_directory")),
        standard_output=output,
        standard_error=error,
        comment=as_text(raw.get("comment")),
        restarts=restarts,
        array_job_id=array_id,
        task_index=index,
        task_mask=mask,
        held_tasks=waiting if as_number(raw.get("priority")) == 0 else 0,
        requeued_tasks=waiting if restarts else 0,
    )


def read_accounting_job(raw: Raw) -> SlurmJob:
    """Return a job from `/slurmdb/…`."""
    job_state = read_state(as_object(raw.get("state")).get("current"))
    exit_code, signal = _read_ending(raw.get("exit_code")) if job_state.is_final else (None, None)
    if not job_state.is_success and (exit_code, signal) == (0, None):
        exit_code = None  # slurmdbd of 22.05 reports 0 for every job, newer ones for CANCELLED and TIMEOUT
    nodes = _text_or_none(raw.get("nodes"))
    has_begun = nodes is not None or not job_state.is_final or job_state.is_success
    times, array = as_object(raw.get("time")), as_object(raw.get("array"))
    array_id = as_number(array.get("job_id")) or None
    output, error = find_accounting_files(raw, array_id, as_number(array.get("task_id")))
    steps = [as_object(step) for step in listed] if isinstance(listed := raw.get("steps"), list) else []
    return SlurmJob(
        job_id=_read_job_id(raw["job_id"]),
        username=read_accounting_owner(raw),
        job_state=job_state,
        reason=_text_or_none(as_object(raw.get("state")).get("reason")),
        exit_code=exit_code,
        signal=signal,
        name=_text_or_none(raw.get("name")),
        partition=_text_or_none(raw.get("partition")),
        nodes=nodes,
        cpus=as_number(as_object(raw.get("required")).get("CPUs")),
        memory_mb=_required_memory_mb(raw),
        time_limit_minutes=as_number(times.get("limit")),
        submit_time=read_time(times.get("submission")),
        start_time=read_time(times.get("start")) if has_begun else None,
        end_time=read_time(times.get("end")) if job_state.is_final else None,
        suspended_seconds=as_number(times.get("suspended")) or 0,
        max_memory_bytes=max(map(_step_memory, steps), default=0) or None,
        cpu_seconds=sum(map(_step_cpu_seconds, steps)) or None,
        working_directory=_text_or_none(raw.get("working_directory")),
        standard_output=output,
        standard_error=error,
        comment=as_text(as_object(raw.get("comment")).get("job")),
        array_job_id=array_id,
        task_index=(index := as_number(array.get("task_id"))),
        task_mask=parse_hex_mask(as_text(array.get("task")) or "") if index is None else 0,
    )


def read_controller_owner(raw: Raw) -> str:
    """Return the user of a job that slurmctld describes."""
    return as_text(raw.get("user_name")) or ""


def read_accounting_owner(raw: Raw) -> str:
    """Return the user of a job that slurmdbd describes."""
    return as_text(raw.get("user")) or as_text(as_object(raw.get("association")).get("user")) or ""


def identify_controller_job(raw: Raw) -> SlurmJob:
    """Return a job that slurmctld describes with the state UNKNOWN, whatever its state is."""
    return read_controller_job({**raw, "job_state": JobState.UNKNOWN})


def identify_accounting_job(raw: Raw) -> SlurmJob:
    """Return a job that slurmdbd describes with the state UNKNOWN, whatever its state is."""
    return read_accounting_job({**raw, "state": {"current": JobState.UNKNOWN}})


def _text_or_none(value: object) -> str | None:
    """Return a text of Slurm's; None for the words, such as "(null)", that stand for no text."""
    return as_text(value) if value not in _NOTHING else None


def read_time(value: object) -> datetime | None:
    """Return a time that Slurm reports in seconds since the epoch; None if there is none."""
    seconds = as_number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds and 0 < seconds < _NO_TIME else None


def _suspended_seconds(raw: Raw, start: datetime | None) -> float:
    """Return for how many seconds the job was suspended before it last resumed.

    `suspend_time` is the time of the last suspension or resumption, `pre_sus_time` the run time until then.
    """
    last = read_time(raw.get("suspend_time"))
    if last is None or start is None or last < start:
        return 0
    return max(0.0, (last - start).total_seconds() - (as_number(raw.get("pre_sus_time")) or 0))


def _memory_mb(value: object) -> int | None:
    megabytes = as_number(value)
    return megabytes if megabytes and megabytes < _MAX_MEMORY_MB else None


def _required_memory_mb(raw: Raw) -> int | None:
    required = as_object(raw.get("required"))
    return _memory_mb(required.get("memory_per_node", required.get("memory")))


def _read_ending(value: object) -> tuple[int | None, int | None]:
    """Return exit code and signal, from a wait status (up to v0.0.38) or an object."""
    if isinstance(value, int) and as_number(value) is not None:
        return (None, value & 0x7F) if value & 0x7F else (value >> 8 & 0xFF, None)
    if not isinstance(value, Mapping):
        return None, None
    killed_by = as_object(value.get("signal"))
    signal = as_number(killed_by.get("id")) or as_number(killed_by.get("signal_id"))
    return (None, signal) if signal else (as_number(value.get("return_code")), None)


def _step_memory(step: Raw) -> int:
    peaks = as_object(as_object(step.get("tres")).get("requested")).get("max")
    items = [as_object(item) for item in peaks] if isinstance(peaks, list) else []
    return max((as_number(item.get("count")) or 0 for item in items if item.get("type") == "mem"), default=0)


def _step_cpu_seconds(step: Raw) -> float:
    total = as_object(as_object(step.get("time")).get("total"))
    return float((as_number(total.get("seconds")) or 0) + (as_number(total.get("microseconds")) or 0) / 1e6)
