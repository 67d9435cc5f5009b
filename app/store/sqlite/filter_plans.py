"""Plans by which SQLite finds the records that meet a filter, in the order of their creation.

Each plan reads one index from the position of the cursor on, with one stream for each value that the filter
has for the columns of the index. What the index does not cover is checked row by row.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from app.job_state import JobState
from app.models.task_filter import WILDCARD, TaskFilter
from app.store.sqlite.schema import JOB_NAME, PARTITION, TASK_NAME

_MAX_STREAMS = 1000  # of one plan
_MAX_PLANS = 3
_COLUMNS = {
    "username": "slurm_username",
    "state": "slurm_job_state",
    "name": TASK_NAME,
    "job_name": JOB_NAME,
    "partition": PARTITION,
    "caller": "caller",
    "resubmitted_from": "resubmitted_from",
}
# The columns of each index before the time of creation; usually the first ones leave the fewest rows.
_INDEXES = {
    "tasks_resubmitted": ("resubmitted_from",),
    "tasks_user": ("username", "state"),
    "tasks_job_name": ("job_name",),
    "tasks_user_created": ("username",),
    "tasks_state": ("state",),
    "tasks_caller_created": ("caller",),
    "tasks_partition": ("partition",),
    "tasks_name": ("name",),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in SQL, with the values of its marks."""

    sql: str = "TRUE"
    values: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to find records.

    Attributes:
        source: The table with the index to read.
        streams: Which entries of the index to read; no record meets two of these conditions.
        check: What a record must meet besides.
    """

    source: str
    streams: Sequence[Condition]
    check: Condition


def build_plans(wanted: TaskFilter, usernames: Collection[str] | None) -> list[Plan]:
    """Return plans that find the same records, at least one; usually the first is the fastest.

    Args:
        wanted: The filter.
        usernames: The users whose records may be found; None for all users.
    """
    keys = _list_keys(wanted, usernames)
    checks = {**_build_checks(wanted, keys), "readable": _build_user_check(usernames)}
    if wanted.uuid:
        return [Plan("tasks", [_is_one_of("uuid", wanted.uuid)], _all_of(checks.values()))]
    usable = [
        (index, fields)
        for index, fields in _INDEXES.items()
        if keys.keys() >= set(fields) and prod(len(keys[field]) for field in fields) <= _MAX_STREAMS
    ]
    if ("tasks_user", _INDEXES["tasks_user"]) in usable:
        usable = [(index, fields) for index, fields in usable if fields not in (("username",), ("state",))]
    plans = [
        Plan(
            f"tasks INDEXED BY {index}",
            [_build_stream(fields, values) for values in product(*(keys[field] for field in fields))],
            _all_of(checks[field] for field in checks if field not in fields or field == "state"),
        )
        for index, fields in usable[:_MAX_PLANS]
    ]
    return plans or [Plan("tasks INDEXED BY tasks_created", [Condition()], _all_of(checks.values()))]


def _list_keys(wanted: TaskFilter, usernames: Collection[str] | None) -> dict[str, list[str | None]]:
    """Return the values that an index can be searched for, by the field of the filter."""
    keys: dict[str, list[str | None]] = {}
    for field in _COLUMNS:
        if words := getattr(wanted, field):
            keys[field] = list(dict.fromkeys(words))
    if usernames is not None:
        readable = frozenset(usernames)
        keys["username"] = [name for name in keys.get("username", usernames) if name in readable]
    if wanted.job_states is not None:
        has_none = wanted.includes_reserved or wanted.includes_unsubmitted
        keys["state"] = [*sorted(wanted.job_states), *([None] if has_none else [])]
    if wanted.job_name_patterns:
        del keys["job_name"]
    return keys


def _build_checks(wanted: TaskFilter, keys: dict[str, list[str | None]]) -> dict[str, Condition]:
    """Return the condition for each field that the filter has."""
    checks = {field: _is_one_of(_COLUMNS[field], words) for field, words in keys.items() if field != "state"}
    if wanted.job_name_patterns:
        globs = [_to_glob(pattern) for pattern in wanted.job_name]
        fits = f"EXISTS (SELECT 1 FROM json_each(?) WHERE {JOB_NAME} GLOB value)"  # noqa: S608
        checks["job_name"] = Condition(fits, (json.dumps(globs),))
    if (states := wanted.job_states) is not None:
        checks["state"] = _build_state_check(wanted, states)
    return checks


def _build_user_check(usernames: Collection[str] | None) -> Condition:
    return Condition() if usernames is None else _is_one_of("slurm_username", list(usernames))


def _build_state_check(wanted: TaskFilter, states: Collection[JobState]) -> Condition:
    """Return the condition on the state, which is NULL for reservations and for failed submissions."""
    one_of = _is_one_of("slurm_job_state", list(states))
    without_job = []
    if wanted.includes_reserved:
        without_job.append("submission_error IS NULL")
    if wanted.includes_unsubmitted:
        without_job.append("submission_error IS NOT NULL")
    if not without_job:
        return one_of
    return Condition(
        f"({one_of.sql} OR (slurm_job_state IS NULL AND ({' OR '.join(without_job)})))", one_of.values
    )


def _build_stream(fields: Sequence[str], values: Sequence[str | None]) -> Condition:
    parts = [
        f"{_COLUMNS[field]} IS NULL" if value is None else f"{_COLUMNS[field]} = ?"
        for field, value in zip(fields, values, strict=True)
    ]
    return Condition(" AND ".join(parts), tuple(value for value in values if value is not None))


def _is_one_of(column: str, words: Sequence[object]) -> Condition:
    return Condition(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(words),))  # noqa: S608


def _all_of(conditions: Collection[Condition] | Iterator[Condition]) -> Condition:
    parts = [condition for condition in conditions if condition.sql != "TRUE"]
    values = tuple(value for condition in parts for value in condition.values)
    return Condition(" AND ".join(condition.sql for condition in parts) or "TRUE", values)


def _to_glob(pattern: str) -> str:
    """Return a pattern of GLOB in which only `*` has a meaning."""
    return "".join(
        letter if letter == WILDCARD or letter not in "?[" else f"[{letter}]" for letter in pattern
    )
