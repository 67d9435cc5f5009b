"""The bash script of a task: makes the folders, goes to the working directory, runs the command."""

import shlex

from app.models.output_files import NO_ARRAY_TASK, expand
from app.models.task import Task

# Exit codes of sysexits.h, for what goes wrong before the command runs.
EXIT_CANNOT_CREATE = 73
EXIT_NO_WORKING_DIRECTORY = 72

_BASH_VALUES = {
    "j": "$SLURM_JOB_ID",
    "A": "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}",
    "a": f"${{SLURM_ARRAY_TASK_ID:-{NO_ARRAY_TASK}}}",
    "x": "$SLURM_JOB_NAME",
    "u": "$SLURM_JOB_USER",
    "N": "$SLURMD_NODENAME",
}


def job_script(task: Task, command: str, *, redirects: bool) -> str:
    """The script that runs `command`, which stands in it as it came: it is the caller's own shell text.

    `redirects`: the script sends the output to its files itself, where Slurm would not make the folders.
    """
    folders = " ".join(shlex.quote(folder) for folder in task.dirs.all())
    lines = [
        "#!/bin/bash",
        f"command -p mkdir -p -- {folders} || exit {EXIT_CANNOT_CREATE}",
        f"cd -- {shlex.quote(task.cwd)} || exit {EXIT_NO_WORKING_DIRECTORY}",
    ]
    if redirects:
        lines += _redirections(task)
    return "\n".join([*lines, command, ""])


def slurm_path(folder: str, name: str) -> str:
    """The path of an output file for Slurm to expand; only the name may hold patterns."""
    return f"{folder.replace('%', '%%').rstrip('/')}/{name}"


def _redirections(task: Task) -> list[str]:
    """Standard error joins standard output unless it has a file of its own, as sbatch does it."""
    output, error = task.slurm.output, task.slurm.error
    out = _bash_path(task.dirs.output, output) if output else None
    err = _bash_path(task.dirs.error, error) if error else None
    if out and err in (None, out):
        err = "&1"
    redirections = [f">{out}" if out else "", f"2>{err}" if err else ""]
    return [f"exec {' '.join(filter(None, redirections))} || exit {EXIT_CANNOT_CREATE}"] if out or err else []


def _bash_path(folder: str, name: str) -> str:
    return shlex.quote(folder.rstrip("/") + "/") + expand(name, _bash_value, _bash_literal)


def _bash_value(letter: str, width: int) -> str:
    value = f'"{_BASH_VALUES[letter]}"'
    return f'"$(printf %0{width}d {value})"' if width else value


def _bash_literal(text: str) -> str:
    return shlex.quote(text) if text else ""
