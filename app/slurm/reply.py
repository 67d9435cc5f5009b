"""Parse the answers of slurmrestd in all their forms."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

# Slurm's own errors. Those below 2000, and from 5000 to 5999, are faults of the communication.
_REFUSALS = frozenset(range(2000, 10_000)) - frozenset(range(5000, 6000))
_UNSPECIFIED = -1

_MAX_TEXT = 500
_MAX_DIGITS = 100  # Python refuses to read integers of more than 4,300 digits
_MAX_INT64 = 2**63 - 1

_CONTROL_BYTES = bytes({*range(32), 127} - {*b"\t\n\r"})
_CONTROL_TO_INVALID = bytes.maketrans(_CONTROL_BYTES, b"\xff" * len(_CONTROL_BYTES))
_ODD_ESCAPE = re.compile(r"\\u(00[01][0-9a-f]|007f|d[89a-f])", re.IGNORECASE)
_ODD_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer of slurmrestd.

    Attributes:
        status: the HTTP status.
        body: the JSON object; {} if the answer is no JSON object.
        text: the beginning of the answer.
        fault: why the answer is no JSON object; empty if it is one.
    """

    status: int
    body: dict[str, Any]
    text: str
    fault: str = ""

    @classmethod
    def read(cls, status: int, content: bytes, encoding: str | None = None) -> "Reply":
        """Parse an answer; `encoding` is its Content-Encoding, although none was requested."""
        text = _decoded(content[:_MAX_TEXT])
        if encoding and encoding.lower() != "identity":
            return cls(status, {}, "", "compressed, which was not requested")
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
        """Return number and text of each error; the number is 0 if there is none."""
        return _remarks(self.body.get("errors"))

    def warnings(self) -> list[str]:
        """Return the texts of Slurm's warnings."""
        return [text for _, text in _remarks(self.body.get("warnings"))]

    def refusals(self) -> list[str]:
        """Return the texts of Slurm's own errors, which are refusals.

        Errors of the communication are left out: slurmctld may have accepted a job nevertheless.
        """
        return [text for number, text in self.errors() if number in _REFUSALS]

    @property
    def is_unspecified_error(self) -> bool:
        """Return whether the answer is an error without a number and a text of its own."""
        return self.status >= 500 and {number for number, _ in self.errors()} == {_UNSPECIFIED}

    def complaint(self) -> str:
        """Describe the fault of this answer in a few words that callers may see."""
        if self.is_unspecified_error:  # 22.05 gives no other reason for a token that it does not accept
            return f"{self.errors()[0][1]} (slurmctld may be down, or the key of this service may be wrong)"
        if errors := self.errors():
            return errors[0][1]
        return f"status {self.status}, {self.fault}" if self.fault else f"status {self.status}"

    def full_complaint(self) -> str:
        """Describe the fault of this answer for the log, with the beginning of an answer that is not Slurm's.

        A proxy between this service and slurmrestd may name inside addresses there.
        """
        beginning = " ".join(self.text.split())[:80]
        if self.fault and beginning and not self.errors():
            return f"{self.complaint()}: {beginning}"
        return self.complaint()


def read_json(content: bytes) -> Any:
    """Parse JSON, with U+FFFD for bytes that are not UTF-8, control characters and half surrogate pairs.

    slurmrestd sends the bytes of names as they are (seen on 22.05 and 26.05). Such a name must not make the
    rest unreadable, and must be stored and sent on.

    Raises:
        ValueError: `content` is not JSON.
        RecursionError: `content` is nested too deeply.
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
    """Parse JSON in which a text may have line ends (strict=False); Infinity and NaN become null."""
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
    """Return number and text of each item of `errors` or `warnings`, in any of their forms."""
    if not listed:
        return []
    items = listed if isinstance(listed, list) else [listed]
    return [(_number(item), _text_of(item)) for item in items]


def _number(item: object) -> int:
    """Return the number of an error, whose name differs between versions; 0 if there is none."""
    if isinstance(item, dict):
        for key in ("error_number", "error_code", "errno", "code"):
            number = item.get(key)
            if isinstance(number, int) and not isinstance(number, bool) and abs(number) <= _MAX_INT64:
                return number
    return 0


def _text_of(item: object) -> str:
    if isinstance(item, str):
        return item[:_MAX_TEXT]
    if isinstance(item, dict):
        for key in ("error", "description", "string"):
            text = item.get(key)
            if text and isinstance(text, str):
                return text[:_MAX_TEXT]
    return "no reason given"
