"""Complete a task with the defaults of its catalogue entry. The stored task stays as it was sent."""

import re
from collections.abc import Mapping
from typing import Any

from app.models.slurm_options import EXCLUSIVE_OPTIONS

FOLDER_PLACEHOLDERS = ("username", "uuid")
_PLACEHOLDER = re.compile(r"\$\{(username|uuid)\}")
_Defaults = Mapping[str, Mapping[str, Any]]


def select_defaults(task: Mapping[str, Any], defaults: _Defaults) -> dict[str, dict[str, Any]]:
    """Return the defaults for keys that the task does not give, by `slurm` and `dirs`.

    The task's own keys have precedence, null too. Of two options that exclude each other, the task's choice
    removes the default of the other one. `${username}` and `${uuid}` in folders stand for those of the task.
    """
    selected = {}
    for part, values in defaults.items():
        own = task.get(part, {})
        if not isinstance(own, dict):  # a fault of the task
            continue
        taken = own.keys() | (_excluded_options(own) if part == "slurm" else set())
        left = {key: _fill(part, value, task) for key, value in values.items() if key not in taken}
        if left or part not in task:
            selected[part] = left
    return selected


def merge_defaults(task: Mapping[str, Any], selected: _Defaults) -> dict[str, Any]:
    """Return the task with the defaults that `select_defaults` has returned for it."""
    return {**task, **{part: {**values, **task.get(part, {})} for part, values in selected.items()}}


def _excluded_options(own: Mapping[str, Any]) -> set[str]:
    pairs = [*EXCLUSIVE_OPTIONS, *((other, one) for one, other in EXCLUSIVE_OPTIONS)]
    return {other for one, other in pairs if own.get(one) is not None}


def _fill(part: str, value: Any, task: Mapping[str, Any]) -> Any:
    """Return a default, a folder with the task's own words in place of its placeholders."""
    is_folder = part == "dirs" and isinstance(value, str)
    return _PLACEHOLDER.sub(lambda match: str(task.get(match[1], match[0])), value) if is_folder else value
