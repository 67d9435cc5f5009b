"""Build the bash script of a job: make the folders, go to the working directory, run the command.

The line of the command is built by `CatalogueEntry.build_command` in `app/models/catalogue_entry.py`: `cmd`
and `default_params` of the task's name in TASK_METADATA, then `cmd` and `params` of the task, which bash
evaluates, or `argv`, quoted word by word.

The script opens the output files itself if Slurm cannot (`submission.py`): before Slurm 24.11, which does not
create their folders, and for names with %N. Otherwise Slurm opens the files.
"""

import shlex
from collections.abc import Mapping

from app.models.file_pattern import NO_ARRAY_TASK, FilePattern, expand
from app.models.task import Task

# Exit codes of sysexits.h, for what goes wrong before the command runs.
EXIT_CANNOT_CREATE = 73
EXIT_NO_WORKING_DIRECTORY = 72

# Variables that sbatch sets and slurmrestd does not. In a bash without HOME, ~ is the home directory of the
# user database; bash takes SHELL from there, too.
_ACCOUNT = (
    '[ "${HOME+set}" ] || HOME=~',
    'export HOME SHELL USER="${USER-$SLURM_JOB_USER}" LOGNAME="${LOGNAME-$SLURM_JOB_USER}"',
)
# Succeeds if the cluster appends to existing output files; without an answer the files are emptied.
_APPENDS = (
    '{ command -p timeout 10 scontrol show config || command -p cat "${SLURM_CONF:-/etc/slurm/slurm.conf}"; }'
    " 2>/dev/null | command -p grep -Eiq '^[[:space:]]*JobFileAppend[[:space:]]*=[[:space:]]*1'"
)

# Slurm sets these variables in every job, and overrides those of the caller.
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


def build_job_script(task: Task, command: str, files: tuple[FilePattern, FilePattern] | None = None) -> str:
    """Return the script of a task.

    Args:
        task: The task.
        command: The line of shell text to run, from `CatalogueEntry.build_command`; it stays unchanged.
        files: The files to which the script itself sends output and error; None if Slurm opens the files.
    """
    folders = " ".join(shlex.quote(folder) for folder in task.dirs.list_all())
    lines = [
        "#!/bin/bash",
        *_ACCOUNT,
        f"command -p mkdir -p -- {folders} || exit {EXIT_CANNOT_CREATE}",
        f"cd -- {shlex.quote(task.cwd)} || exit {EXIT_NO_WORKING_DIRECTORY}",
    ]
    if files:
        values = _BASH_VALUES_OF_ARRAYS if task.slurm.array else _BASH_VALUES
        lines += _redirections(*files, values, task.slurm.open_mode)
    return "\n".join([*lines, command, ""])


def _redirections(
    output: FilePattern, error: FilePattern, values: Mapping[str, str], open_mode: str | None
) -> list[str]:
    """Return the lines that open the files as Slurm would, either emptied or to append."""
    out, err = _bash_path(output, values), _bash_path(error, values)
    empty, append = (f"exec {sign}{out} 2{'>&1' if err == out else sign + err}" for sign in (">", ">>"))
    if open_mode is not None:
        return [f"{append if open_mode == 'append' else empty} || exit {EXIT_CANNOT_CREATE}"]
    return [
        f"if [[ -s {out} || -s {err} ]] && {_APPENDS}; then",
        f"  {append}",
        "else",
        f"  {empty}",
        f"fi || exit {EXIT_CANNOT_CREATE}",
    ]


def _bash_path(file: FilePattern, values: Mapping[str, str]) -> str:
    def value(letter: str, width: int) -> str:
        quoted = f'"{values[letter]}"'
        return f'"$(printf %0{width}d {quoted})"' if width else quoted

    return shlex.quote(file.folder.rstrip("/") + "/") + expand(file.name, value, _bash_literal)


def _bash_literal(text: str) -> str:
    return shlex.quote(text) if text else ""
