"""Check the names of users that tasks run as: usual names, or those of the operator's pattern."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.models.rules import RULE

_USUAL = "[a-z_][a-z0-9_.-]*[$]?"
_MAX_USUAL_LENGTH = 32  # characters, as in /etc/passwd
# Holds for every name, whatever the operator's pattern says. A name goes into headers, tokens, paths (%u),
# queries and logs, so that none of these characters may have a meaning there. Slurm takes a name of digits
# for a user id, and runs a job of the user "0" as root (22.05, 24.11).
_POSSIBLE = r"(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_.@+$-]*"
_MAX_LENGTH = 255
_CHARACTERS = (
    "ASCII letters, digits, _, ., @, +, $ and -, beginning with a letter, a digit or _, and not all digits"
)

CONTEXT_KEY = "username_pattern"  # of a validation context: the operator's pattern, or None for the usual one


def is_username(value: object, pattern: str | None = None) -> bool:
    """Return whether a task may run as this user. `pattern`: the operator's; None for usual names."""
    if pattern is None:
        return _fits(value, _USUAL, _MAX_USUAL_LENGTH)
    return is_possible_username(value) and _fits(value, pattern, _MAX_LENGTH)


def is_possible_username(value: object) -> bool:
    """Return whether an operator's pattern could allow this user name."""
    return _fits(value, _POSSIBLE, _MAX_LENGTH)


def describe_username_rule(pattern: str | None) -> str:
    """Return the rule for user names, to stand after "must"."""
    if pattern is None:
        return "be a user name, a string of at most 32 of a-z, 0-9, _, . and -, beginning with a letter or _"
    return f"be a user name that matches {pattern} (TASK_USERNAME_PATTERN of this server), of {_CHARACTERS}"


def build_username_schema(pattern: str | None) -> dict[str, Any]:
    """Return the JSON Schema of a user name."""
    schema = {"type": "string", RULE: describe_username_rule(pattern)}
    if pattern is None:
        return {**schema, "pattern": f"^{_USUAL}$", "maxLength": _MAX_USUAL_LENGTH}
    possible = {"pattern": f"^{_POSSIBLE}$"}
    return {**schema, "pattern": f"^(?:{pattern})$", "maxLength": _MAX_LENGTH, "allOf": [possible]}


def _fits(value: object, pattern: str, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and re.fullmatch(pattern, value) is not None


def _check_username(value: object, info: ValidationInfo) -> object:
    """Refuse a value that is no user name; without a validation context, only if no pattern allows it."""
    context = info.context or {}
    if CONTEXT_KEY not in context:
        is_good, rule = is_possible_username(value), f"be a user name, of {_CHARACTERS}"
    else:
        pattern = context[CONTEXT_KEY]
        is_good, rule = is_username(value, pattern), describe_username_rule(pattern)
    if not is_good:
        raise PydanticCustomError("rule", "must {rule}", {"rule": rule})
    return value


Username = Annotated[str, BeforeValidator(_check_username), WithJsonSchema(build_username_schema(None))]
