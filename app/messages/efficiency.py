"""What people look up by hand after a job: how much of what it asked for it has used, and one hint."""

from collections.abc import Callable
from datetime import timedelta

from app.job_state import JobState
from app.messages.pending_reasons import why_not_started
from app.models.job import SlurmJob

_MB = 1024 * 1024
_FEW = 0.25  # of what was asked for
_SHORT = 60.0  # seconds; a shorter run says little about efficiency
_SMALL_MB = 1024  # less memory than this is not worth a remark


def cpu_efficiency(job: SlurmJob) -> float | None:
    """The share of its CPUs that the job kept busy, 0 to 1."""
    run = job.elapsed_seconds()
    if not run or not job.cpus or job.cpu_seconds is None or job.array_tasks:
        return None
    return job.cpu_seconds / (run * job.cpus)


def size(number_of_bytes: float) -> str:
    """As people write it: 512 MB, 4.0 GB."""
    megabytes = number_of_bytes / _MB
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def hint(job: SlurmJob) -> str:
    """The most useful piece of advice, or none."""
    return next((words for rule in _RULES if (words := rule(job))), "")


def _memory_short(job: SlurmJob) -> str | None:
    if job.job_state is not JobState.OUT_OF_MEMORY:
        return None
    limit = f" at {size(job.memory_mb * _MB)}" if job.memory_mb else ""
    return f"It was killed for memory{limit}: ask for more with task.slurm.mem."


def _time_short(job: SlurmJob) -> str | None:
    if job.job_state is not JobState.TIMEOUT:
        return None
    limit = f" of {duration(60 * job.time_limit_minutes)}" if job.time_limit_minutes else ""
    return f"Its time limit{limit} was too short: ask for more with task.slurm.time, or save its progress."


def _command_missing(job: SlurmJob) -> str | None:
    return {
        72: "Exit code 72 is slurm-proxy's own: the working directory, task.cwd, is not there for this user.",
        73: "Exit code 73 is slurm-proxy's own: this user could not make a folder of task.dirs or an"
        " output file.",
        126: "Exit code 126 is bash's word for a command that may not be executed.",
        127: "Exit code 127 is bash's word for a command that was not found.",
    }.get(job.exit_code or 0)


def _memory_wasted(job: SlurmJob) -> str | None:
    used, asked = job.max_memory_bytes, job.memory_mb
    if not job.job_state.is_success or not used or not asked or asked < _SMALL_MB:
        return None
    if used >= _FEW * asked * _MB:
        return None
    return f"It used {size(used)} of {size(asked * _MB)}: with less task.slurm.mem it may start sooner."


def _cpus_wasted(job: SlurmJob) -> str | None:
    share = cpu_efficiency(job)
    if not job.job_state.is_success or share is None or not job.cpus or job.cpus < 2:
        return None
    if share >= 1.5 / job.cpus or (job.elapsed_seconds() or 0) < _SHORT:
        return None
    return f"It kept {share * job.cpus:.1f} of {job.cpus} CPUs busy: with fewer it may start sooner."


_RULES: tuple[Callable[[SlurmJob], str | None], ...] = (
    why_not_started,
    _memory_short,
    _time_short,
    _command_missing,
    _memory_wasted,
    _cpus_wasted,
)
