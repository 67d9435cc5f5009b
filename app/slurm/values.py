"""Read single values in answers of slurmrestd, in the forms of all API versions."""

import re
from collections.abc import Mapping
from typing import Any

from app.models.rules import CONTROL

Raw = Mapping[str, Any]

_MAX_NUMBER = 2**63 - 1  # the largest that a store can keep
_CONTROL = re.compile(f"[{CONTROL}]")


def as_object(value: object) -> Raw:
    """Return `value` if it is a JSON object, else an empty object."""
    return value if isinstance(value, Mapping) else {}


def as_number(value: object) -> int | None:
    """Return a number, plain or as {set, infinite, number}; None if the number is not set."""
    if isinstance(value, Mapping):
        if not value.get("set") or value.get("infinite"):
            return None
        value = value.get("number")
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_NUMBER:
        return None
    return value


def as_text(value: object) -> str | None:
    """Return a text on one line; None if there is none."""
    return (_CONTROL.sub("\ufffd", value) or None) if isinstance(value, str) else None
