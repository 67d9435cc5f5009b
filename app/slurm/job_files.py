"""Reads where a job's output goes, as slurmctld and slurmdbd of each release tell it."""

from app.models.file_pattern import NO_ARRAY_TASK, expand, padded
from app.slurm.values import Raw, text

Files = tuple[str | None, str | None]  # standard output, standard error


def controller_files(raw: Raw, array_id: int | None, array_task: int | None) -> Files:
    """Return the files of a job of slurmctld; none for an interactive job.

    v0.0.38 tells a path as it was submitted, and nothing of Slurm's default. Newer versions tell the expanded
    path, from v0.0.43 on as `stdout_expanded`.
    """
    if not raw.get("batch_flag", True):
        return None, None
    if isinstance(raw.get("job_state"), str):  # v0.0.38
        default = "slurm-%j.out" if array_id is None else "slurm-%A_%a.out"
        output, error = _text(raw.get("standard_output")) or default, _text(raw.get("standard_error"))
        return _joined(*(_expanded(path, raw, array_id, array_task) for path in (output, error)))
    names = ("stdout_expanded", "stderr_expanded")
    names = names if names[0] in raw else ("standard_output", "standard_error")
    return _newer_files(raw, names, array_id, array_task)


def accounting_files(raw: Raw, array_id: int | None, array_task: int | None) -> Files:
    """Return the files of a job of slurmdbd, which does not know them before 24.11."""
    return _newer_files(raw, ("stdout_expanded", "stderr_expanded"), array_id, array_task)


def _newer_files(raw: Raw, names: tuple[str, str], array_id: int | None, array_task: int | None) -> Files:
    """Tasks of an array that have not begun are one job, in whose path Slurm writes a number for none."""
    output, error = (_text(raw.get(name)) for name in names)
    if array_id is not None and array_task is None:
        output, error = (path.replace(NO_ARRAY_TASK, "%a") for path in (output, error))
    return _joined(output, error)


def _expanded(path: str, raw: Raw, array_id: int | None, array_task: int | None) -> str:
    """Return the path as 22.05 expands it. It makes %N the host's own name, which it does not tell."""
    values = {
        "j": str(raw.get("job_id")),
        "A": str(array_id or raw.get("job_id")),
        "x": _text(raw.get("name")) or "(null)",
        "u": _text(raw.get("user_name")),
    }
    if array_id is None or array_task is not None:
        values["a"] = NO_ARRAY_TASK if array_task is None else str(array_task)
    folder = "" if path.startswith("/") or not path else f"{_text(raw.get('current_working_directory'))}/"
    return folder + expand(path, padded(values))


def _joined(output: str, error: str) -> Files:
    """Error without a file of its own joins the output."""
    return output or None, error or output or None


def _text(value: object) -> str:
    return text(value) or ""
