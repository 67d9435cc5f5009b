"""`task.notification`: the channels, their parameters, and the events to announce."""

from enum import StrEnum
from itertools import chain
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.models.rules import Line, Minutes, Rule

METHOD_ALIASES = {"rabbithq": "rabbitmq"}  # another spelling, and the method that it means


def _require_known_method(value: str, info: ValidationInfo) -> str:
    """Return the method that a word means; with a validation context, it must be a channel."""
    method = METHOD_ALIASES.get(value, value)
    methods = (info.context or {}).get("methods")
    if methods is not None and method not in methods:
        raise PydanticCustomError("rule", "must be one of {words}", {"words": ", ".join(methods)})
    return method


def _require_one_spelling(value: object, info: ValidationInfo) -> object:
    """Refuse a method under both of its names, because the parameters of one would be dropped.

    Stored tasks, which are read without a context, may have both.
    """
    given = [item for item in value if isinstance(item, str)] if isinstance(value, list | dict) else []
    for alias, method in METHOD_ALIASES.items():
        if info.context and alias in given and method in given:
            words = "must not have both {alias} and {method}: they are one method"
            raise PydanticCustomError("rule", words, {"alias": alias, "method": method})
    return value


Method = Annotated[Line, AfterValidator(_require_known_method)]


class EventName(StrEnum):
    """An event that a caller can have announced, in the sense of sbatch's --mail-type."""

    BEGIN = "begin"
    END = "end"
    FAIL = "fail"
    REQUEUE = "requeue"
    INVALID_DEPEND = "invalid_depend"
    CANNOT_START = "cannot_start"
    TIME_LIMIT_50 = "time_limit_50"
    TIME_LIMIT_80 = "time_limit_80"
    TIME_LIMIT_90 = "time_limit_90"


class PendingOver(BaseModel):
    """The event that the job has been waiting for this number of minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pending_over: Minutes


# sbatch's word for all events; the end includes a bad end.
_ALL = "all"
_OF_ALL = tuple(event for event in EventName if not event.startswith("time_limit"))
_WORDS = [*map(str, EventName), _ALL]


def _expand_all(events: object) -> object:
    """Return a list of events with the word "all" replaced by the events that this word stands for."""
    if not isinstance(events, list | tuple):
        return events
    named = [_OF_ALL if isinstance(event, str) and event.lower() == _ALL else (event,) for event in events]
    return tuple(chain.from_iterable(named))


# Words of sbatch's --mail-type, in capitals or not.
EventWord = Annotated[
    EventName,
    BeforeValidator(lambda word: word.lower() if isinstance(word, str) else word),
    # Generators of clients refuse an enum whose words differ only in their case.
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": _WORDS},
                {"type": "string", "pattern": f"^({'|'.join(_WORDS).upper()})$"},
            ]
        }
    ),
]
RequestedEvent = Annotated[
    EventWord | PendingOver,
    Rule(f'be one of {", ".join((*EventName, _ALL))}, or {{"pending_over": minutes}}'),
]


class NotificationRequest(BaseModel):
    """The messages that a task asks for: their methods, receivers and events.

    Each method checks its own object in `params`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: Annotated[tuple[Method, ...], BeforeValidator(_require_one_spelling)] = Field(
        default=(), description="The methods (channels) to send messages by."
    )
    params: Annotated[dict[Method, dict[str, Any]], BeforeValidator(_require_one_spelling)] = Field(
        default_factory=dict
    )
    events: (
        Annotated[tuple[RequestedEvent, ...], Field(max_length=20), BeforeValidator(_expand_all)] | None
    ) = Field(
        default=None,
        description="The events to announce, in the words of sbatch's --mail-type. By default the end of the"
        " job is announced, and to people also that the job cannot start.",
    )
