"""Read the paths of a job's output files, as slurmctld and slurmdbd of each release report them."""

from app.models.file_pattern import NO_ARRAY_TASK, expand, pad_values
from app.slurm.values import Raw, as_text

Files = tuple[str | None, str | None]  # standard output, standard error


def find_controller_files(raw: Raw, array_id: int | None, array_task: int | None) -> Files:
    """Return the files of a job that slurmctld describes; none for an interactive job.

    v0.0.38 reports a path as it was submitted, and no path if Slurm's default applies. Newer versions report
    the expanded path, from v0.0.43 on as `stdout_expanded`.
    """
    if not raw.get("batch_flag", True):
        return None, None
    if isinstance(raw.get("job_state"), str):  # v0.0.38
        default = "slurm-%j.out" if array_id is None else "slurm-%A_%a.out"
        output = _text_or_empty(raw.get("standard_output")) or default
        error = _text_or_empty(raw.get("standard_error"))
        return _joined(*(_expanded(path, raw, array_id, array_task) for path in (output, error)))
    names = ("stdout_expanded", "stderr_expanded")
    names = names if names[0] in raw else ("standard_output", "standard_error")
    return _newer_files(raw, names, array_id, array_task)


def find_accounting_files(raw: Raw, array_id: int | None, array_task: int | None) -> Files:
    """Return the files of a job that slurmdbd describes; before 24.11 slurmdbd does not know them."""
    return _newer_files(raw, ("stdout_expanded", "stderr_expanded"), array_id, array_task)


def _newer_files(raw: Raw, names: tuple[str, str], array_id: int | None, array_task: int | None) -> Files:
    """Return the files as newer versions report them.

    The tasks of an array that have not begun are one job. In its path Slurm writes NO_ARRAY_TASK for `%a`.
    """
    output, error = (_text_or_empty(raw.get(name)) for name in names)
    if array_id is not None and array_task is None:
        output, error = (path.replace(NO_ARRAY_TASK, "%a") for path in (output, error))
    return _joined(output, error)


def _expanded(path: str, raw: Raw, array_id: int | None, array_task: int | None) -> str:
    """Return the path as 22.05 expands it, except for %N: Slurm does not report that host name."""
    values = {
        "j": str(raw.get("job_id")),
        "A": str(array_id or raw.get("job_id")),
        "x": _text_or_empty(raw.get("name")) or "(null)",
        "u": _text_or_empty(raw.get("user_name")),
    }
    if array_id is None or array_task is not None:
        values["a"] = NO_ARRAY_TASK if array_task is None else str(array_task)
    is_relative = bool(path) and not path.startswith("/")
    folder = f"{_text_or_empty(raw.get('current_working_directory'))}/" if is_relative else ""
    return folder + expand(path, pad_values(values))


def _joined(output: str, error: str) -> Files:
    """Return both files; an error without a file of its own goes to the output's file."""
    return output or None, error or output or None


def _text_or_empty(value: object) -> str:
    return as_text(value) or ""
