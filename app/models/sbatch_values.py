"""Parse memory sizes, times and switches: numbers, or texts of sbatch such as "1-02:30:00"."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from app.models.rules import MAX_INT, Rule

_MEMORY = re.compile(r"(?P<number>[0-9]{1,15})(?:(?P<unit>[KMGT])B?)?", re.IGNORECASE)
_KILOBYTES = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
_TIME = re.compile(r"(?:(?P<days>[0-9]{1,9})-)?(?P<rest>[0-9]{1,10}(?::[0-9]{1,10}){0,2})")
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_UNLIMITED = ("unlimited", "infinite")
_SWITCHES = re.compile(r"0*[1-9][0-9]{0,8}(?:@.+)?")
_MAX_SWITCHES = 999_999_999
_MAX_HOURS = MAX_INT // 60

# ECMA-262 patterns for the schemas that callers read. They allow fewer digits than the code.
_WORDS = "|".join((*_UNLIMITED, *map(str.upper, _UNLIMITED)))
_CLOCK = r"[0-9]{1,4}:[0-9]{1,4}(:[0-9]{1,4})?|[0-9]{1,4}-[0-9]{1,4}(:[0-9]{1,4}){0,2}"
_MEMORY_PATTERN = r"^[0-9]{1,9}([Kk][Bb]?|[Mm][Bb]?)?$|^[0-9]{1,6}[Gg][Bb]?$|^[0-9]{1,3}[Tt][Bb]?$"
_CLOCK_PATTERN = rf"^({_WORDS}|{_CLOCK})$"
_TIME_PATTERN = rf"^({_WORDS}|[0-9]{{1,9}}|{_CLOCK})$"
_SOME_TIME_PATTERN = rf"^(?=.*[1-9])([0-9]{{1,9}}|{_CLOCK})$"
_SWITCHES_PATTERN = rf"^0*[1-9][0-9]{{0,8}}(@({_WORDS}|[0-9]{{1,9}}|{_CLOCK}))?$"


def parse_memory_mb(text: str) -> int:
    """Return the megabytes of a text such as "4G"; a number without a unit counts megabytes.

    Raises:
        ValueError: sbatch does not accept the text.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError("no memory size")
    kilobytes = int(match["number"]) * _KILOBYTES[(match["unit"] or "M").upper()]
    return -(-kilobytes // 1024)


def parse_time_seconds(text: str) -> int | None:
    """Return the seconds of a text such as "90" (minutes), "90:30" (minutes and seconds) or "1-02:30:00".

    None stands for a time without a limit.

    Raises:
        ValueError: sbatch does not accept the text.
    """
    if text.lower() in _UNLIMITED:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("no time")
    numbers = [int(number) for number in match["rest"].split(":")]
    units = (_HOUR, _MINUTE, 1)
    if match["days"] is None and len(numbers) < 3:
        units = (_MINUTE, 1, 0)
    seconds = sum(number * unit for number, unit in zip(numbers, units, strict=False))
    return seconds + int(match["days"] or 0) * _DAY


def parse_time_minutes(text: str) -> int:
    """Return the minutes of a time, rounded up as sbatch does; 0 for a time without a limit.

    Raises:
        ValueError: sbatch does not accept the text.
    """
    return -(-(parse_time_seconds(text) or 0) // _MINUTE)


def parse_switches(given: int | str) -> tuple[int, int | None]:
    """Return the number of switches and the seconds to wait, of a value such as 1 or "1@0:30:00".

    None stands for a wait as long as the cluster allows.

    Raises:
        ValueError: sbatch does not accept the text.
    """
    count, at, wait = str(given).partition("@")
    return int(count), parse_time_seconds(wait) if at else None


def _read_text(read: Callable[[str], int]) -> BeforeValidator:
    """Return a validator that parses texts, and returns other values unchanged."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _number_or_text(pattern: str, most: int, least: int = 0) -> WithJsonSchema:
    number = {"type": "integer", "minimum": least, "maximum": most}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


def _check_clock(value: str) -> str:
    """Refuse a bare number, which sbatch takes for minutes although `time` counts hours."""
    if value.isdecimal() or parse_time_minutes(value) > MAX_INT:
        raise ValueError("no time with a unit")
    return value


def _check_switches(value: int | str) -> int | str:
    if not _SWITCHES.fullmatch(str(value)) or (parse_switches(value)[1] or 0) > MAX_INT:
        raise ValueError("no number of switches")
    return value


def _whole_number(most: int, least: int = 0) -> Any:
    return Field(strict=True, ge=least, le=most)


Memory = Annotated[
    int,
    _whole_number(MAX_INT),
    _read_text(parse_memory_mb),
    _number_or_text(_MEMORY_PATTERN, MAX_INT),
    Rule('be megabytes, or a size such as "4G" (K, M, G or T); 0 for all memory of a node'),
]
TimeLimit = Annotated[
    int,
    _whole_number(MAX_INT),
    _read_text(parse_time_minutes),
    _number_or_text(_TIME_PATTERN, MAX_INT),
    Rule('be minutes, or a time such as "90:30" (minutes and seconds) or "1-02:30:00"; 0 for no limit'),
]
MinimumTime = Annotated[
    int,
    _whole_number(MAX_INT, least=1),
    _read_text(parse_time_minutes),
    _number_or_text(_SOME_TIME_PATTERN, MAX_INT, least=1),
    Rule('be minutes, at least 1, or a time such as "90:30" (minutes and seconds) or "1-02:30:00"'),
]
HoursOrTime = Annotated[
    Annotated[int, _whole_number(_MAX_HOURS)]
    | Annotated[str, Field(strict=True), AfterValidator(_check_clock)],
    _number_or_text(_CLOCK_PATTERN, _MAX_HOURS),
    Rule(
        f"be hours, at most {_MAX_HOURS} (minutes where the server's TASK_TIME_UNIT says so), or a time such"
        ' as "90:30" (minutes and seconds) or "1-02:30:00"; 0 for no limit'
    ),
]
Switches = Annotated[
    Annotated[int, _whole_number(_MAX_SWITCHES, least=1)] | Annotated[str, Field(strict=True)],
    AfterValidator(_check_switches),
    _number_or_text(_SWITCHES_PATTERN, _MAX_SWITCHES, least=1),
    Rule('be a number of switches, at least 1, or one with the longest time to wait for it: "1@0:30:00"'),
]
