"""Find the files of a job's standard output and standard error."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.models.file_pattern import NO_ARRAY_TASK, FilePattern
from app.models.job import SlurmJob
from app.models.record import RecordKind, TaskRecord

_FIRST_NODE = re.compile(r"(?:[^,\[]|\[[^\]]*\])*")
_NUMBERS = re.compile(r"\[([0-9]+)[^\]]*\]")


class OutputFiles(NamedTuple):
    """The paths of a job's files; None where there is no file, or none is known."""

    output: str | None
    error: str | None


def derive_file_patterns(task: Mapping[str, Any]) -> tuple[FilePattern, FilePattern]:
    """Return where a submitted task's output and error go, by its `cwd`, `dirs` and `slurm`.

    As with sbatch, output without a name goes to Slurm's default file in the working directory, and error
    without a name joins the output.
    """
    options, dirs = task["slurm"], task["dirs"]
    output, error = options.get("output"), options.get("error")
    default = FilePattern(task["cwd"], "slurm-%A_%a.out" if options.get("array") else "slurm-%j.out")
    out = FilePattern(dirs["output"], output) if output else default
    return out, FilePattern(dirs["error"], error) if error else out


def find_output_files(record: TaskRecord, job: SlurmJob) -> OutputFiles:
    """Return the files of a job.

    Slurm reports the files of a registered job; those of a submitted task follow from the task. The tasks of
    a submitted array write several files, so that the path stays a pattern.
    """
    if job.never_ran and not job.restarts:
        return OutputFiles(None, None)
    if record.kind is RecordKind.REGISTERED:
        return OutputFiles(job.standard_output, job.standard_error)
    task = record.full_task
    out, err = derive_file_patterns(task)
    values = _values(task, job)
    return OutputFiles(out.expand_path(values), err.expand_path(values))


def find_first_node(nodes: str) -> str:
    """Return the first node of a list such as "n[3-5,9],m1". It runs the batch script."""
    first = _FIRST_NODE.match(nodes)
    return _NUMBERS.sub(r"\1", first[0] if first else nodes)


def choose_job_name(task: Mapping[str, Any]) -> str:
    """Return the name that a submitted task gives its job: its `job_name`, else its `name`."""
    return str(task["slurm"].get("job_name") or task["name"])


def _values(task: Mapping[str, Any], job: SlurmJob) -> dict[str, str]:
    """Return the values of the patterns, without those that differ within the job."""
    is_array = bool(task["slurm"].get("array")) or job.array_tasks is not None
    values = {"x": job.name or choose_job_name(task), "u": str(task["username"])}
    if job.job_id:
        values["A"] = str(job.job_id)
    if not is_array:
        values |= {"j": str(job.job_id)} if job.job_id else {}
        values["a"] = NO_ARRAY_TASK
        values |= {"N": find_first_node(job.nodes)} if job.nodes else {}
    return values
