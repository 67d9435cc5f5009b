"""Where a task's standard output and error go, and Slurm's `%` patterns in their names."""

import re
from collections.abc import Callable, Mapping

from app.models.job import SlurmJob
from app.models.task import Task

_PATTERN = re.compile(r"%([0-9]*)([%jxuAaN])")
_WIDEST = 10  # Slurm pads no further
NO_ARRAY_TASK = "4294967294"  # what Slurm writes for %a in a job that is no array


def expand(name: str, value: Callable[[str, int], str], literal: Callable[[str], str] = str) -> str:
    """`name` with each pattern replaced by `value(letter, width)`; `literal` treats what lies between.

    `width` is the zero-padding of a number, which sbatch allows between the sign and the letter, else 0.
    """
    parts, end = [], 0
    for match in _PATTERN.finditer(name):
        parts.append(literal(name[end : match.start()]))
        letter = match[2]
        width = min(int(match[1] or 0), _WIDEST) if letter in "jAa" else 0
        parts.append(literal("%") if letter == "%" else value(letter, width))
        end = match.end()
    return "".join([*parts, literal(name[end:])])


def output_path(task: Task, job: SlurmJob) -> str:
    """The path of the job's standard output as a person looks for it."""
    if task.slurm.output is None:
        return f"{task.cwd}/slurm-{job.job_id}.out"
    folder = task.dirs.output.rstrip("/")
    if job.array_tasks is not None:
        return f"{folder}/{task.slurm.output}"
    values: Mapping[str, str] = {
        "j": str(job.job_id),
        "A": str(job.job_id),
        "x": job.name or "%x",
        "u": task.username,
        "a": NO_ARRAY_TASK,
        "N": job.nodes or "%N",
    }
    return f"{folder}/{expand(task.slurm.output, lambda letter, width: values[letter].zfill(width))}"
