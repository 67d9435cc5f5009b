"""Filters of tasks: which tasks a list shows, and which ones a bulk action is for."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.close_matches import MAX_WORD_LENGTH, find_similar_word, suggest_similar_word
from app.errors import InvalidRequest
from app.job_state import JobState
from app.models.faults import describe_fault
from app.models.rules import ONE_LINE, Line

MAX_UUIDS = 500  # in one request
MAX_WORDS = 100  # of each other filter
MAX_LIMIT = 1000
WILDCARD = "*"
# The states that each group stands for. A task without a job is open as a reservation; once its submission
# has failed, it is ended and failed.
_GROUPS = {
    "open": frozenset(state for state in JobState if not state.is_settled),
    "ended": frozenset(state for state in JobState if state.is_settled),
    "failed": frozenset(state for state in JobState if state.is_final and not state.is_success),
}
_STATES = (*_GROUPS, *JobState)
# For generated clients, whose names of values do not differ in case.
_STATE_NAMES = [*(f"GROUP_{group.upper()}" for group in _GROUPS), *JobState]
_STATE_HINT = f"it must be {', '.join(_GROUPS)}, or a word of Slurm such as PENDING or COMPLETED"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(f"([0-9]{{1,6}})([{''.join(_UNITS)}])")
_OFFSET_AFTER_SPACE = re.compile(r"(?<=T..:..) (?=..:..$)|(?<=T..:..:..) (?=..:..$)")
CONTEXT_KEY = "now"


class TaskOrder(StrEnum):
    """The order of a list, by the time at which the records were created."""

    NEWEST = "newest"
    OLDEST = "oldest"


def _list_values(value: object, most: int) -> list[object]:
    """Return the values of a condition: those of a list, or the only one."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple):
        raise PydanticCustomError("rule", "must be a text or a list of texts")
    if not 0 < len(values) <= most:
        raise PydanticCustomError("rule", "must have 1 to {most} values", {"most": most})
    return list(values)


def _take_only_value(value: object) -> object:
    """Return the value of a parameter that the query has once."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise PydanticCustomError("rule", "must occur only once")
    return value[0]


def _check_state(word: str) -> str:
    if word in _STATES:
        return word
    shown = word[:MAX_WORD_LENGTH]
    hint = suggest_similar_word(word.upper(), JobState, _STATE_HINT)
    if (group := find_similar_word(word, _GROUPS)) is not None:
        hint = f"did you mean {group}?"
    if "," in word:
        hint = "give several states as several values"
    raise PydanticCustomError("rule", "{shown} is not a job state; {hint}", {"shown": shown, "hint": hint})


def _parse_time_or_age(value: object, info: ValidationInfo) -> datetime:
    """Return the time of an ISO 8601 text, in UTC unless it has an offset, or of an age such as `2h`."""
    try:
        if not isinstance(value, str):
            raise ValueError("not a text")
        if match := _AGE.fullmatch(value):
            age = timedelta(**{_UNITS[match[2]]: int(match[1])})
            return _to_utc((info.context or {})[CONTEXT_KEY] - age)
        return _to_utc(datetime.fromisoformat(_OFFSET_AFTER_SPACE.sub("+", value)))
    except (OverflowError, ValueError):
        words = "must be a time in ISO 8601 such as 2026-01-31T08:00Z, or an age such as 30m, 2h or 7d"
        raise PydanticCustomError("rule", words) from None


def _to_utc(at: datetime) -> datetime:
    """Return a time in UTC, to the millisecond: no store keeps finer ones."""
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _parse_limit(value: object) -> object:
    is_number = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 6
    if not is_number or not 0 < int(value) <= MAX_LIMIT:  # type: ignore[call-overload]
        raise PydanticCustomError("rule", f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(value)  # type: ignore[call-overload]


def _check_order(value: object) -> object:
    if value in list(TaskOrder):
        return value
    hint = suggest_similar_word(str(value).lower(), TaskOrder, f"it must be {' or '.join(TaskOrder)}")
    shown = str(value)[:MAX_WORD_LENGTH]
    raise PydanticCustomError("rule", "{shown} is not an order; {hint}", {"shown": shown, "hint": hint})


def _one_or_more(item: dict[str, Any], most: int) -> WithJsonSchema:
    """Return the schema of one text or of a list of texts."""
    several = {"type": "array", "items": item, "minItems": 1, "maxItems": most}
    return WithJsonSchema({"anyOf": [item, several]})


_take_words = BeforeValidator(partial(_list_values, most=MAX_WORDS))

_TEXT = {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": ONE_LINE}
_TIME = WithJsonSchema({"type": "string", "minLength": 2, "pattern": ONE_LINE})
Words = Annotated[tuple[Line, ...], _take_words, _one_or_more(_TEXT, MAX_WORDS)]
_States = Annotated[
    tuple[Annotated[Line, AfterValidator(_check_state)], ...],
    _take_words,
    _one_or_more({"type": "string", "enum": list(_STATES), "x-enum-varnames": _STATE_NAMES}, MAX_WORDS),
]
_Uuids = Annotated[
    tuple[Line, ...],
    BeforeValidator(partial(_list_values, most=MAX_UUIDS)),
    _one_or_more(_TEXT, MAX_UUIDS),
]
_Time = Annotated[
    datetime | None, BeforeValidator(_parse_time_or_age), BeforeValidator(_take_only_value), _TIME
]


class TaskFilter(BaseModel):
    """The tasks that meet all conditions. A condition with several values is met by any of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    username: Words = Field(default=(), description="The user that the job runs as.")
    state: _States = Field(
        default=(),
        description="A job state of Slurm, or `open`, `ended` or `failed`. A job is also `failed` if it was"
        " cancelled or has timed out, and a task whose submission has failed is `failed`, too.",
    )
    name: Words = Field(default=(), description="The name of the task.")
    job_name: Words = Field(
        default=(),
        description="The name of the job in Slurm. `*` stands for any characters.",
        examples=["train-*"],
    )
    partition: Words = Field(default=(), description="The partition of the job, or else of the task.")
    caller: Words = Field(default=(), description="The name of the API key or token that created the task.")
    resubmitted_from: Words = Field(default=(), description="The uuid of the task that was resubmitted.")
    since: _Time = Field(
        default=None, description="Created at this time or later: ISO 8601, or an age such as `30m` or `7d`."
    )
    until: _Time = Field(default=None, description="Created before this time: ISO 8601, or an age.")
    uuid: _Uuids = Field(default=(), description="The uuid of the task.")

    @property
    def is_empty(self) -> bool:
        """Return whether the filter has no condition, so that it is met by every task."""
        return all(getattr(self, name) in ((), None) for name in TaskFilter.model_fields)

    @property
    def job_states(self) -> frozenset[JobState] | None:
        """Return the states of the jobs that meet the filter; None for any state, or none."""
        if not self.state:
            return None
        return frozenset().union(*(_GROUPS.get(word) or {JobState(word)} for word in self.state))

    @property
    def includes_reserved(self) -> bool:
        """Return whether a task without a job meets the condition on the state as a reservation."""
        return not self.state or "open" in self.state

    @property
    def includes_unsubmitted(self) -> bool:
        """Return whether a task meets the condition on the state if its submission has failed."""
        return not self.state or not {"ended", "failed"}.isdisjoint(self.state)

    @property
    def job_name_patterns(self) -> tuple[str, ...]:
        """Return the job names that have a wildcard."""
        return tuple(word for word in self.job_name if WILDCARD in word)


class TaskQuery(TaskFilter):
    """The query of a list: a filter, and the page to return."""

    order: Annotated[
        TaskOrder,
        BeforeValidator(_check_order),
        BeforeValidator(_take_only_value),
        WithJsonSchema({"type": "string", "enum": list(TaskOrder)}),
    ] = Field(
        default=TaskOrder.NEWEST, description="The order by time of creation; by default, newest first."
    )
    limit: Annotated[
        int,
        BeforeValidator(_parse_limit),
        BeforeValidator(_take_only_value),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
    ] = Field(default=100, description="The most tasks in the answer; 100 by default.")
    after: Annotated[Line | None, BeforeValidator(_take_only_value), WithJsonSchema(_TEXT)] = Field(
        default=None, description="The cursor `next` of the previous page."
    )


def parse_query(values: Mapping[str, Sequence[str]], now: datetime) -> TaskQuery:
    """Return the query of a list.

    Args:
        values: The values of each parameter.
        now: The store's time, to which ages refer.

    Raises:
        InvalidRequest: There are faults; the error lists all of them, each with its parameter.
    """
    try:
        return TaskQuery.model_validate(values, context={CONTEXT_KEY: now})
    except ValidationError as error:
        faults = ({**fault, "loc": fault["loc"][:1]} for fault in error.errors(include_url=False))
        raise InvalidRequest(describe_fault(TaskQuery, fault, "") for fault in faults) from None
