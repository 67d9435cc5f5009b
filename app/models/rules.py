"""The types of values in a request, each with a rule for the error that callers read."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema

from app.errors import InvalidRequest
from app.models.file_pattern import PATTERN_LETTERS, find_unknown_pattern

MAX_INT = 2**31 - 1
# Larger 32-bit numbers mean "no job" in Slurm. slurmrestd of 24.11 answers 422 to a request that has one.
MAX_JOB_ID = 2**32 - 4
_MAX_DIGITS = 12  # of a job id in a path, leading zeros included
_MAX_SHOWN_LENGTH = 20  # characters of a pattern in an error
RULE = "x-rule"  # in a JSON Schema: the words of a `Rule`

# Patterns as ECMA-262 has them, for the schemas that callers read.
CONTROL = r"\u0000-\u001f\u007f\u0085\u2028\u2029"
ONE_LINE = f"^[^{CONTROL}]*$"
NO_NUL = r"^[^\u0000]*$"
VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"
# RFC 3339, between 1971 and 2105: what Slurm's 32 bits hold.
_TIMESTAMP = (
    r"^(19(7[1-9]|[89][0-9])|20[0-9]{2}|210[0-5])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)

_CONTROL = re.compile(f"[{CONTROL}]")


class Rule:
    """The rule of a type of values: whatever is wrong with a value, the fault is "must <words>"."""

    def __init__(self, words: str, **schema: Any) -> None:
        """Create a rule. `schema`: keywords for the JSON Schema of the value."""
        self._words = words
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return pydantic's schema of the value, with a validator that gives faults their words."""
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON Schema of the value, with the words of the rule."""
        return {**handler(schema), **self._schema, RULE: self._words}

    def _check(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except (ValidationError, ValueError):
            raise PydanticCustomError("rule", "must {words}", {"words": self._words}) from None


def _require_one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("control character")
    return value


def is_one_line(value: str) -> bool:
    """Return whether a text is not empty and has no control characters."""
    return bool(value) and not _CONTROL.search(value)


def _require_absolute_path(value: str) -> str:
    _require_one_line(value)
    if not value.startswith("/") or "\\" in value:
        raise ValueError("not an absolute path")
    return value


def _require_file_name(value: str) -> str:
    _require_one_line(value)
    if "/" in value or "\\" in value or value in {".", ".."}:
        raise ValueError("not a file name")
    return value


def _require_known_patterns(value: str) -> str:
    if (pattern := find_unknown_pattern(value)) is not None:
        words = (
            'must not have "{pattern}": only the patterns {known} work on every Slurm release; write %% for %'
        )
        known = " ".join(f"%{letter}" for letter in PATTERN_LETTERS)
        raise PydanticCustomError("rule", words, {"pattern": pattern[:_MAX_SHOWN_LENGTH], "known": known})
    return value


def _parse_moment(value: object) -> object:
    """Return the seconds since the epoch of a text in ISO 8601; leave other values as they are."""
    if not isinstance(value, str):
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return int(moment.timestamp())


Uuid = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._:-]{1,128}$"),
    Rule("be a string of 1 to 128 letters, digits, '.', '_', ':' or '-'"),
]
AbsolutePath = Annotated[
    str,
    StringConstraints(strict=True, max_length=1024),
    AfterValidator(_require_absolute_path),
    Rule(
        "be an absolute path, a string of at most 1024 characters without control characters and backslashes",
        pattern=rf"^/[^{CONTROL}\\]*$",
    ),
]
FileName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=255),
    AfterValidator(_require_file_name),
    Rule(
        "be a file name (no folder), a string of at most 255 without control characters and backslashes",
        pattern=rf"^(?!\.{{1,2}}$)([^{CONTROL}/\\%]|%%|%[0-9]*[{PATTERN_LETTERS}])+$",
    ),
    AfterValidator(_require_known_patterns),
]
Line = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=1024),
    AfterValidator(_require_one_line),
    Rule("be one line of text, 1 to 1024 characters", pattern=ONE_LINE),
]
LongLine = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=16_384),
    AfterValidator(_require_one_line),
    Rule("be one line of text, 1 to 16384 characters", pattern=ONE_LINE),
]
ShellText = Annotated[str, Field(strict=True), Rule("be a string", pattern=NO_NUL)]
Command = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, pattern=r"\S"),
    Rule("be a command, a string that is not empty", pattern=r"^(?![\s\u0085]*$)[^\u0000]*$"),
]
Flag = Annotated[bool, Field(strict=True), Rule("be true or false")]
Count = Annotated[
    int, Field(strict=True, gt=0, le=MAX_INT), Rule(f"be a positive integer of at most {MAX_INT}")
]
Minutes = Annotated[
    int,
    Field(strict=True, gt=0, le=MAX_INT),
    Rule(f"be a positive integer of at most {MAX_INT} (minutes)"),
]
CountOrText = Annotated[
    Annotated[int, Field(strict=True, gt=0, le=MAX_INT)] | Line,
    Rule("be a positive integer or one line of text"),
]
Nice = Annotated[
    int,
    Field(strict=True, ge=-MAX_INT, le=MAX_INT),
    Rule("be an integer between -2147483647 and 2147483647"),
]
Moment = Annotated[
    int,
    Field(strict=True, gt=0, le=2**32 - 1),
    BeforeValidator(_parse_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 2**32 - 1},
                {"type": "string", "format": "date-time", "pattern": _TIMESTAMP},
            ]
        }
    ),
    Rule("be seconds since the epoch, or an ISO 8601 time with its offset"),
]
_A_JOB_ID = f"be a Slurm job id, an integer from 1 to {MAX_JOB_ID}"
JobId = Annotated[int, Field(strict=True, gt=0, le=MAX_JOB_ID), Rule(_A_JOB_ID)]


IDEMPOTENCY_KEY = {
    "type": "string",
    "pattern": r'^(?!"{0,2}$)"?[!-~]([ -~]{0,253}[!-~])?"?$',
    "description": "1 to 255 printable ASCII characters, with or without quotes around them. A request that"
    " is repeated with the same key gets the answer of the first one.",
}


def parse_job_id(field: str, text: str) -> int:
    """Return the job id that a part of a path names.

    Raises:
        InvalidRequest: It is no job id; the error names `field`.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if not (is_number and 0 < int(text) <= MAX_JOB_ID):
        raise InvalidRequest([f"{field}: must {_A_JOB_ID}"])
    return int(text)


def parse_idempotency_key(header: str | None) -> str | None:
    """Return the key in an `Idempotency-Key` header, quoted or not; None without such a header.

    Raises:
        InvalidRequest: The header has a value that is no key.
    """
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise InvalidRequest(["Idempotency-Key: must be 1 to 255 printable ASCII characters"])
    return key
