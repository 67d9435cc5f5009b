"""The kinds of values in a request, each with the words that a caller reads when it is wrong."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from app.errors import InvalidRequest

MAX_INT = 2**31 - 1
_USERNAME = r"^[a-z_][a-z0-9_.-]*[$]?$"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")


def must(words: str) -> WrapValidator:
    """Whatever is wrong with the value, the fault reads "must <words>"."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except (ValidationError, ValueError):
            raise PydanticCustomError("rule", "must {words}", {"words": words}) from None

    return WrapValidator(check)


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("control character")
    return value


def is_one_line(value: str) -> bool:
    return bool(value) and not _CONTROL.search(value)


def is_username(value: str) -> bool:
    return len(value) <= 32 and re.fullmatch(_USERNAME, value) is not None


def _path(value: str) -> str:
    _one_line(value)
    if not value.startswith("/") or "\\" in value:
        raise ValueError("not an absolute path")
    return value


def _file_name(value: str) -> str:
    _one_line(value)
    if "/" in value or "\\" in value or value in {".", ".."}:
        raise ValueError("not a file name")
    return value


def _moment(value: object) -> object:
    """Seconds since the epoch, from ISO 8601 where it is text."""
    if not isinstance(value, str):
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return int(moment.timestamp())


Username = Annotated[
    str,
    StringConstraints(strict=True, max_length=32, pattern=_USERNAME),
    must("be a user name: at most 32 of a-z, 0-9, _, . and -, beginning with a letter or _"),
]
Uuid = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._:-]{1,128}$"),
    must("be 1 to 128 letters, digits, '.', '_', ':' or '-'"),
]
AbsolutePath = Annotated[
    str,
    StringConstraints(strict=True, max_length=1024),
    AfterValidator(_path),
    must("be an absolute path of at most 1024 characters, without control characters and backslashes"),
]
FileName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=255),
    AfterValidator(_file_name),
    must("be a file name (no folder), without control characters and backslashes"),
]
Line = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=1024),
    AfterValidator(_one_line),
    must("be one line of text, 1 to 1024 characters"),
]
ShellText = Annotated[str, Field(strict=True), must("be a string")]
Command = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, pattern=r"\S"),
    must("be a command, not empty"),
]
Flag = Annotated[bool, Field(strict=True), must("be true or false")]
Count = Annotated[int, Field(strict=True, gt=0, le=MAX_INT), must("be a positive integer")]
Megabytes = Annotated[int, Field(strict=True, gt=0, le=MAX_INT), must("be a positive integer (megabytes)")]
Minutes = Annotated[int, Field(strict=True, gt=0, le=MAX_INT), must("be a positive integer (minutes)")]
Hours = Annotated[
    int,
    Field(strict=True, gt=0, le=MAX_INT // 60),
    must("be a positive integer (hours, unless the server says minutes)"),
]
CountOrText = Annotated[
    Annotated[int, Field(strict=True, gt=0, le=MAX_INT)] | Line,
    must("be a positive integer or one line of text"),
]
Nice = Annotated[
    int,
    Field(strict=True, ge=-MAX_INT, le=MAX_INT),
    must("be an integer between -2147483647 and 2147483647"),
]
Moment = Annotated[
    int,
    Field(strict=True, gt=0, le=2**32 - 1),
    BeforeValidator(_moment),
    must("be seconds since the epoch, or an ISO 8601 time with its offset"),
]
JobId = Annotated[int, Field(strict=True, gt=0, le=2**32 - 1), must("be a positive integer, a Slurm job id")]


def idempotency_key(header: str | None) -> str | None:
    """The key in an `Idempotency-Key` header, quoted or not; InvalidRequest if it cannot be one."""
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise InvalidRequest(["Idempotency-Key: must be 1 to 255 printable ASCII characters"])
    return key
