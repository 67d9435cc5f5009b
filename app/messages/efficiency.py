"""Compute the efficiency of a job (its use of CPUs and memory), and one hint for its user."""

from collections.abc import Callable
from datetime import timedelta

from app.job_state import JobState
from app.messages.pending_reasons import explain_never_started
from app.models.job import SlurmJob

_MB = 1024 * 1024
_LOW_USE = 0.25  # a use below this share of the memory requested is worth a hint
_SHORT_RUN = 60.0  # seconds; a shorter run says little about efficiency
_SMALL_MEMORY_MB = 1024  # a smaller request is not worth a hint


def compute_cpu_efficiency(job: SlurmJob) -> float | None:
    """Return the share of its CPUs that the job kept busy, from 0 to 1; None if unknown, or for an array."""
    run = job.elapsed_seconds()
    if not run or not job.cpus or job.cpu_seconds is None or job.array_tasks:
        return None
    return job.cpu_seconds / (run * job.cpus)


def format_bytes(number_of_bytes: float) -> str:
    """Return a size in the form 512 MB or 4.0 GB."""
    megabytes = number_of_bytes / _MB
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def format_duration(seconds: float) -> str:
    """Return a duration in the form 1:02:03, or 1 day, 2:03:04."""
    return str(timedelta(seconds=int(seconds)))


def find_hint(job: SlurmJob) -> str:
    """Return the most useful piece of advice about the job; empty if there is none."""
    return next((words for rule in _HINT_RULES if (words := rule(job))), "")


def _advise_more_memory(job: SlurmJob) -> str | None:
    if job.job_state is not JobState.OUT_OF_MEMORY:
        return None
    limit = f" at {format_bytes(job.memory_mb * _MB)}" if job.memory_mb else ""
    return f"The job ran out of memory{limit}: request more with task.slurm.mem."


def _advise_more_time(job: SlurmJob) -> str | None:
    if job.job_state is not JobState.TIMEOUT:
        return None
    limit = f" of {format_duration(60 * job.time_limit_minutes)}" if job.time_limit_minutes else ""
    return f"The time limit{limit} was too short: request more with task.slurm.time, or save its progress."


def _explain_exit_code(job: SlurmJob) -> str | None:
    return {
        72: "Exit code 72 comes from slurm-proxy: this user cannot enter the working directory, task.cwd.",
        73: "Exit code 73 comes from slurm-proxy: this user could not create a folder of task.dirs or an"
        " output file.",
        126: "Exit code 126 comes from bash: the command is not executable.",
        127: "Exit code 127 comes from bash: the command was not found.",
    }.get(job.exit_code or 0)


def _advise_less_memory(job: SlurmJob) -> str | None:
    used, asked = job.max_memory_bytes, job.memory_mb
    if not job.job_state.is_success or not used or not asked or asked < _SMALL_MEMORY_MB:
        return None
    if used >= _LOW_USE * asked * _MB:
        return None
    share = f"{format_bytes(used)} of {format_bytes(asked * _MB)}"
    return f"The job used {share}: with less task.slurm.mem, it may start sooner."


def _advise_fewer_cpus(job: SlurmJob) -> str | None:
    share = compute_cpu_efficiency(job)
    if not job.job_state.is_success or share is None or not job.cpus or job.cpus < 2:
        return None
    if share >= 1.5 / job.cpus or (job.elapsed_seconds() or 0) < _SHORT_RUN:
        return None
    return f"The job kept {share * job.cpus:.1f} of {job.cpus} CPUs busy: with fewer, it may start sooner."


_HINT_RULES: tuple[Callable[[SlurmJob], str | None], ...] = (
    explain_never_started,
    _advise_more_memory,
    _advise_more_time,
    _explain_exit_code,
    _advise_less_memory,
    _advise_fewer_cpus,
)
