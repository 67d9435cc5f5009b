"""The bash script of a task: makes the folders, goes to the working directory, runs the command."""

import shlex
from collections.abc import Mapping

from app.models.file_pattern import NO_ARRAY_TASK, FilePattern, expand
from app.models.task import Task

# Exit codes of sysexits.h, for what goes wrong before the command runs.
EXIT_CANNOT_CREATE = 73
EXIT_NO_WORKING_DIRECTORY = 72

# Slurm sets these in every job, over what the caller gives.
_BASH_VALUES = {
    "j": "$SLURM_JOB_ID",
    "A": "$SLURM_JOB_ID",
    "a": NO_ARRAY_TASK,
    "x": "$SLURM_JOB_NAME",
    "u": "$SLURM_JOB_USER",
    "N": "$SLURMD_NODENAME",
    "%": "%",
}
_BASH_VALUES_OF_ARRAYS = {**_BASH_VALUES, "A": "$SLURM_ARRAY_JOB_ID", "a": "$SLURM_ARRAY_TASK_ID"}


def job_script(task: Task, command: str, files: tuple[FilePattern, FilePattern] | None = None) -> str:
    """Return the script that runs `command`, which stands in it as it came: it is the caller's shell text.

    `files`: where the script itself sends output and error; None where Slurm does it.
    """
    folders = " ".join(shlex.quote(folder) for folder in task.dirs.all())
    lines = [
        "#!/bin/bash",
        f"command -p mkdir -p -- {folders} || exit {EXIT_CANNOT_CREATE}",
        f"cd -- {shlex.quote(task.cwd)} || exit {EXIT_NO_WORKING_DIRECTORY}",
    ]
    if files:
        lines.append(_redirections(*files, _BASH_VALUES_OF_ARRAYS if task.slurm.array else _BASH_VALUES))
    return "\n".join([*lines, command, ""])


def _redirections(output: FilePattern, error: FilePattern, values: Mapping[str, str]) -> str:
    out, err = _bash_path(output, values), _bash_path(error, values)
    return f"exec >{out} 2>{'&1' if err == out else err} || exit {EXIT_CANNOT_CREATE}"


def _bash_path(file: FilePattern, values: Mapping[str, str]) -> str:
    def value(letter: str, width: int) -> str:
        quoted = f'"{values[letter]}"'
        return f'"$(printf %0{width}d {quoted})"' if width else quoted

    return shlex.quote(file.folder.rstrip("/") + "/") + expand(file.name, value, _bash_literal)


def _bash_literal(text: str) -> str:
    return shlex.quote(text) if text else ""
