"""The parameters of the method `rabbitmq`."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from app.models.rules import ONE_LINE, Flag, Line, Rule, is_one_line

_MAX_SHORT_STRING = 255  # bytes


def _require_short(value: str) -> str:
    """Require that the value fits into a short string of AMQP."""
    if len(value.encode()) > _MAX_SHORT_STRING:
        raise ValueError("too long")
    return value


def _require_one_line_or_empty(value: str) -> str:
    """Require a value without control characters: RabbitMQ 3.10 drops a newline in a binding."""
    if value and not is_one_line(value):
        raise ValueError("control character")
    return value


Exchange = Annotated[
    str,
    Field(strict=True),
    AfterValidator(_require_short),
    AfterValidator(_require_one_line_or_empty),
    Rule(
        "be the name of an exchange, one line of at most 255 bytes, or empty for the default one",
        maxLength=_MAX_SHORT_STRING,
        pattern=ONE_LINE,
    ),
]
Key = Annotated[
    Line, AfterValidator(_require_short), Rule("be one line of 1 to 255 bytes", maxLength=_MAX_SHORT_STRING)
]


class RabbitmqParams(BaseModel):
    """The parameters: at least one of `queue`, `routing_key` and `exchange`, a subject and a body.

    With `passive` the queue must exist already, and nothing is declared or bound. Without `passive`, a queue
    that does not exist is declared as durable.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}}
                for name in ("queue", "routing_key", "exchange")
            ]
        },
    )

    queue: Key | None = None
    exchange: Exchange = ""
    routing_key: Key | None = None
    passive: Flag = False
    subject: Line | None = None
    body: JsonValue = None

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.queue is None and self.routing_key is None and not self.exchange:
            raise PydanticCustomError("rule", "must name a queue, a routing_key or an exchange")
        return self
