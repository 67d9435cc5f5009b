"""Parse the JSON of a request, and refuse values that could not be stored and returned verbatim."""

import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NoReturn

from app.errors import InvalidRequest

MAX_DEPTH = 50
MAX_VALUES = 20_000  # keys, items and what stands in them
MAX_TEXT = 131_072  # characters, as long as Linux takes one argument
_MAX_KEY_LENGTH = 60  # characters
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
_FORM = re.compile(rb"--\S+\r?\n|[\w.%+-]+(\[[^=]*\])?=")  # multipart, or one field after the other
_INT64 = range(-(2**63), 2**63)
_Path = tuple[str | int, ...]  # the keys and indexes that lead to a value


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`. The UTF-8 may begin with a byte order mark, as Windows writes it.

    Raises:
        InvalidRequest: `raw` is no such object; the error names the fault and, if there is one, its field.
    """
    try:
        body = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError:
        raise InvalidRequest(["body: is not UTF-8"]) from None
    except RecursionError:
        raise InvalidRequest([f"body: is nested deeper than {MAX_DEPTH} levels"]) from None
    except json.JSONDecodeError as error:
        words = "must be a JSON object, not a form" if _FORM.match(raw) else f"is not JSON: {error}"
        raise InvalidRequest([f"body: {words}"]) from None
    except ValueError:  # the only other one
        raise InvalidRequest(
            ["body: has an integer of thousands of digits; it must fit into 64 bits"]
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequest(["body: must be a JSON object"])
    require_storable(body)
    return body


def require_storable(body: dict[str, Any]) -> None:
    """Check that a body can be stored, and returned verbatim.

    Raises:
        InvalidRequest: The body is too large or nested too deep, or has values that cannot be stored.
    """
    if _has_more_values(body, MAX_VALUES):
        raise InvalidRequest([f"body: has more than {MAX_VALUES} values"])
    faults = _find_faults(body, ())
    for fault in faults:
        raise InvalidRequest(chain([fault], faults))


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidRequest([f"'{_printable(key)}': occurs twice in one object"])
        result[key] = value
    return result


def _refuse_constant(word: str) -> NoReturn:
    raise InvalidRequest([f"body: is not JSON: {word} is not a JSON number"])


def _has_more_values(value: object, most: int) -> bool:
    """Return whether there are more than `most` keys, items and values; count no further than that."""
    pending, count = [value], 0
    while pending:
        item = pending.pop()
        count += 1
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        if count + len(pending) > most:
            return True
    return False


def _find_faults(container: dict[str, Any] | list[Any], path: _Path) -> Iterator[str]:
    is_too_deep = len(path) >= MAX_DEPTH
    for key, item in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(key, str) and (words := _find_text_fault(key)):
            yield f"{_format_path(path)}: its key {_printable(key)}: {words}"
        if is_too_deep:
            yield f"{_format_path((*path, key))}: is nested deeper than {MAX_DEPTH} levels"
        elif isinstance(item, dict | list):
            yield from _find_faults(item, (*path, key))
        elif words := _find_scalar_fault(item):
            yield f"{_format_path((*path, key))}: {words}"


def _find_scalar_fault(value: object) -> str:
    """Return what is wrong with a value that is no container; an empty text for a good one."""
    if isinstance(value, str):
        return _find_text_fault(value)
    if isinstance(value, int) and value not in _INT64:
        return "must fit into 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return "is too large for a number"
    return ""


def _find_text_fault(text: str) -> str:
    if len(text) > MAX_TEXT:
        return f"must not be longer than {MAX_TEXT} characters"
    if not _NOT_STORABLE.search(text):
        return ""
    return f"must not contain {'a NUL character' if chr(0) in text else 'half a surrogate pair'}"


def _format_path(path: _Path) -> str:
    text = ""
    for key in path:
        text = f"{text}[{key}]" if isinstance(key, int) else f"{text}.{_printable(key)}".lstrip(".")
    return text or "body"


def _printable(key: str) -> str:
    """Return a key for the path of a fault: printable, and no longer than a line."""
    short = key if len(key) <= _MAX_KEY_LENGTH else f"{key[:_MAX_KEY_LENGTH]}…"
    return short if short.isprintable() else ascii(short)[1:-1]
