"""What slurmrestd answered, read as far as it can be read."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

# Slurm's own errors; below 2000 and from 5000 to 5999 are faults of the way to slurmctld.
_REFUSALS = frozenset(range(2000, 10_000)) - frozenset(range(5000, 6000))
_UNSPECIFIED = -1

_MAX_WORDS = 500
_MAX_DIGITS = 100  # Python refuses to read integers of more than 4,300 digits
_MAX_INT64 = 2**63 - 1

_CONTROL_BYTES = bytes({*range(32), 127} - {*b"\t\n\r"})
_CONTROL_TO_INVALID = bytes.maketrans(_CONTROL_BYTES, b"\xff" * len(_CONTROL_BYTES))
_ODD_ESCAPE = re.compile(r"\\u(00[01][0-9a-f]|007f|d[89a-f])", re.IGNORECASE)
_ODD_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What slurmrestd answered; `body` is {} where no JSON object came, and `fault` then says why."""

    status: int
    body: dict[str, Any]
    text: str  # the beginning of what came
    fault: str = ""

    @classmethod
    def read(cls, status: int, content: bytes, encoding: str | None = None) -> "Reply":
        """Return the answer; `encoding` is its Content-Encoding, of which none was asked for."""
        text = _decoded(content[:_MAX_WORDS])
        if encoding and encoding.lower() != "identity":
            return cls(status, {}, "", "compressed, which was not asked for")
        if not content.strip():
            return cls(status, {}, text, "empty")
        try:
            body = read_json(content)
        except RecursionError:
            return cls(status, {}, text, "nested too deeply")
        except ValueError:
            return cls(status, {}, text, "not JSON")
        if not isinstance(body, dict):
            return cls(status, {}, text, "no JSON object")
        return cls(status, body, text)

    def errors(self) -> list[tuple[int, str]]:
        """Return Slurm's error numbers and words; 0 where there is no number."""
        return _remarks(self.body.get("errors"))

    def warnings(self) -> list[str]:
        return [words for _, words in _remarks(self.body.get("warnings"))]

    def statuses(self) -> list[tuple[int, str]]:
        """Return the same of what a request did to each job: `status` of an answer to DELETE."""
        listed = self.body.get("status")
        items = listed if isinstance(listed, list) else [listed]
        faults = [item.get("error") for item in items if isinstance(item, dict)]
        return _remarks([fault for fault in faults if fault and not _is_code_zero(fault)])

    def refusals(self) -> list[str]:
        """Return Slurm's words where it clearly says no: its own errors, not those of the way to it.

        After an error of communication slurmctld may have taken a job.
        """
        return [words for number, words in self.errors() if number in _REFUSALS]

    @property
    def is_unspecified_error(self) -> bool:
        """Whether an error came that has no number and no words of its own."""
        return self.status >= 500 and {number for number, _ in self.errors()} == {_UNSPECIFIED}

    def complaint(self) -> str:
        """Return in a few words what is wrong with this answer."""
        if errors := self.errors():
            return errors[0][1]
        if self.fault:
            beginning = f": {' '.join(self.text.split())[:80]}" if self.text.strip() else ""
            return f"status {self.status}, {self.fault}{beginning}"
        return f"status {self.status}"


def read_json(content: bytes) -> Any:
    """Return what JSON says, with U+FFFD for what no text may hold.

    That is bytes that are not UTF-8, control characters and half surrogate pairs.
    slurmrestd sends the bytes of names as they are (seen on 22.05 and 26.05); one of them must not hide the
    rest, and what comes out can be stored and sent on.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    text = _decoded(content)
    try:
        value = _loaded(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of too many digits; this way takes longer
        value = _loaded(text, parse_int=_integer)
    return _cleaned(value) if _ODD_ESCAPE.search(text) else value


def _decoded(content: bytes) -> str:
    return content.translate(_CONTROL_TO_INVALID).decode(errors="replace")


def _loaded(text: str, **options: Any) -> Any:
    """strict=False: line ends within a text are taken as they are. Infinity and NaN become null."""
    return json.loads(text, strict=False, parse_float=_real, parse_constant=lambda _: None, **options)


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _real(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _ODD_CHARACTER.sub("\ufffd", value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


def _remarks(listed: object) -> list[tuple[int, str]]:
    """Return numbers and words of `errors` or `warnings`, whatever shape they have."""
    if not listed:
        return []
    items = listed if isinstance(listed, list) else [listed]
    return [(_number(item), _words(item)) for item in items]


def _is_code_zero(fault: object) -> bool:
    return isinstance(fault, dict) and fault.get("code") == 0


def _number(item: object) -> int:
    """Each version spells it in its own way."""
    if isinstance(item, dict):
        for key in ("error_number", "error_code", "errno", "code"):
            number = item.get(key)
            if isinstance(number, int) and not isinstance(number, bool) and abs(number) <= _MAX_INT64:
                return number
    return 0


def _words(item: object) -> str:
    if isinstance(item, str):
        return item[:_MAX_WORDS]
    if isinstance(item, dict):
        for key in ("error", "description", "string"):
            words = item.get(key)
            if words and isinstance(words, str):
                return words[:_MAX_WORDS]
    return "no reason given"
