"""Check the parameters of a task against the JSON Schema of its catalogue entry, and describe the faults.

Some keywords have functions of their own: for better words, and so that no value takes long. Patterns are
matched against short texts only, and equal items are found without comparing each with each.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from app.close_matches import MAX_WORD_LENGTH, suggest_similar_word

_MAX_FAULTS = 101  # more than an error lists; the rest is not looked for
_MAX_MATCHED_LENGTH = 1000  # characters of a text that a pattern is matched against
_MAX_LISTED_VALUES = 20  # in an error
_MAX_SHOWN_LENGTH = 200  # characters of one value in an error
_OWN_WORDS = {"required", "additionalProperties", "pattern", "patternProperties", "properties", "uniqueItems"}
_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} keys",
    "maxProperties": "must have at most {} keys",
}

_MINIMUM_SIZES = {"minLength", "minItems", "minProperties"}
_END_OF_LINE = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\$", re.DOTALL)  # outside of a class

Schema = dict[str, Any]


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""Return a pattern of a schema, with the meaning that JSON Schema gives it.

    `$` is only the end of the text, not also the place before a last line break. `\d` and `\w` are ASCII.

    Raises:
        re.error: It is no regular expression.
    """
    return re.compile(_END_OF_LINE.sub(lambda match: match[1] or r"\Z", pattern), re.ASCII)


def list_value_faults(schema: Schema, value: object, root: str) -> Iterator[str]:
    """Yield the faults of a value, each with its path below `root`."""
    found = islice(_Validator(schema).iter_errors(value), _MAX_FAULTS)
    for error in sorted(found, key=lambda error: list(map(str, error.path))):
        yield f"{join_path(root, error.absolute_path)}: {_describe_error(error)}"


def join_path(root: str, parts: Iterable[str | int]) -> str:
    """Return the path of a value within the value at `root`."""
    for part in parts:
        root += f"[{part}]" if isinstance(part, int) else f".{str(part)[:MAX_WORD_LENGTH]}"
    return root


def _describe_error(error: ValidationError) -> str:
    keyword, limit = str(error.validator), error.validator_value
    if keyword in _OWN_WORDS:
        return str(error.message)
    if keyword in _MINIMUM_SIZES and limit == 1:
        return "must not be empty"
    if keyword in _LIMITS:
        return _LIMITS[keyword].format(limit)
    match keyword:
        case "type":
            names = [limit] if isinstance(limit, str) else limit
            return "must be " + " or ".join(_TYPES[name] for name in names)
        case "enum":
            more = "; …" if len(limit) > _MAX_LISTED_VALUES else ""
            return "must be one of " + ", ".join(map(_show, limit[:_MAX_LISTED_VALUES])) + more
        case "const":
            return f"must be {_show(limit)}"
        case "None":  # the schema false
            return "must not be given"
    return f"must meet the rule {keyword}, which GET /catalogue shows"


def _show(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_MAX_SHOWN_LENGTH]


def _match_required(_: Any, names: list[str], value: object, __: Schema) -> Iterator[ValidationError]:
    for name in names:
        if isinstance(value, dict) and name not in value:
            yield ValidationError("is required", path=(name,))


def _match_additional(
    validator: Any, allowed: Any, value: object, schema: Schema
) -> Iterator[ValidationError]:
    known = list(schema.get("properties", {}))
    patterns = list(schema.get("patternProperties", ()))
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if allowed is False:
            words = f"known here: {', '.join(known[:_MAX_LISTED_VALUES])}" if known else "none is known here"
            yield ValidationError(f"is not known; {suggest_similar_word(name, known, words)}", path=(name,))
        else:
            yield from validator.descend(item, allowed, path=name)


def _match_properties(
    validator: Any, properties: Schema, value: object, _: Schema
) -> Iterator[ValidationError]:
    for name, schema in properties.items():
        if isinstance(value, dict) and name in value:
            if schema is False:
                yield ValidationError("must not be given", path=(name,))
            else:
                yield from validator.descend(value[name], schema, path=name, schema_path=name)


def _match_pattern(_: Any, pattern: str, value: object, __: Schema) -> Iterator[ValidationError]:
    if not isinstance(value, str):
        return
    if len(value) > _MAX_MATCHED_LENGTH:
        yield ValidationError(f"must have at most {_MAX_MATCHED_LENGTH} characters")
    elif not _matches(pattern, value):
        yield ValidationError(f"must match the regular expression {_show(pattern)}")


def _match_pattern_properties(
    validator: Any, patterns: Schema, value: object, _: Schema
) -> Iterator[ValidationError]:
    for name, item in value.items() if isinstance(value, dict) else ():
        for pattern, schema in patterns.items():
            if _matches(pattern, name):
                yield from validator.descend(item, schema, path=name, schema_path=pattern)


def _match_unique_items(_: Any, wanted: bool, value: object, __: Schema) -> Iterator[ValidationError]:
    if wanted and isinstance(value, list):
        texts = {json.dumps(item, sort_keys=True) for item in value}
        if len(texts) < len(value):
            yield ValidationError("must not have the same item twice")


def _matches(pattern: str, text: str) -> bool:
    """Return whether the pattern is found in a text, of which no more than the beginning is searched."""
    return compile_pattern(pattern).search(text[:_MAX_MATCHED_LENGTH]) is not None


_Validator = extend(
    Draft202012Validator,
    {
        "required": _match_required,
        "additionalProperties": _match_additional,
        "pattern": _match_pattern,
        "patternProperties": _match_pattern_properties,
        "properties": _match_properties,
        "uniqueItems": _match_unique_items,
    },
)
