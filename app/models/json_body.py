"""Reads the JSON of a request, and refuses what could not be kept and given back verbatim."""

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
_LONGEST_KEY = 60  # characters
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_FORM = re.compile(rb"--\S+\r?\n|[\w.%+-]+(\[[^=]*\])?=")  # multipart, or one field after the other
_INT64 = range(-(2**63), 2**63)


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in `raw`, whose UTF-8 may begin with a byte order mark, as Windows writes it.

    Raises:
        InvalidRequest: `raw` is no such object; the error names the fault and, if there is one, its field.
    """
    try:
        body = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise InvalidRequest(["body: is not UTF-8"]) from None
    except RecursionError:
        raise InvalidRequest([f"body: is nested deeper than {MAX_DEPTH} levels"]) from None
    except ValueError as error:
        words = "must be a JSON object, not a form" if _FORM.match(raw) else f"is not JSON: {error}"
        raise InvalidRequest([f"body: {words}"]) from None
    if not isinstance(body, dict):
        raise InvalidRequest(["body: must be a JSON object"])
    if _exceeds(body, MAX_VALUES):
        raise InvalidRequest([f"body: holds more than {MAX_VALUES} values"])
    faults = _faults(body, "", 0)
    for fault in faults:
        raise InvalidRequest(chain([fault], faults))
    return body


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidRequest([f"'{_shown(key)}': stands twice in one object"])
        result[key] = value
    return result


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _exceeds(value: object, most: int) -> bool:
    """Whether there are more than `most` values in it; counts no further than that."""
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


def _faults(value: object, path: str, depth: int) -> Iterator[str]:
    where = path or "body"
    if depth > MAX_DEPTH:
        yield f"{where}: is nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _text_faults(key, f"{where}: its key {_shown(key)}")
            yield from _faults(item, f"{path}.{_shown(key)}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]", depth + 1)
    else:
        yield from _scalar_faults(value, where)


def _scalar_faults(value: object, where: str) -> list[str]:
    if isinstance(value, str):
        return _text_faults(value, where)
    if isinstance(value, int) and value not in _INT64:
        return [f"{where}: must fit into 64 bits"]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{where}: is too large for a number"]
    return []


def _text_faults(text: str, where: str) -> list[str]:
    if len(text) > MAX_TEXT:
        return [f"{where}: must not be longer than {MAX_TEXT} characters"]
    if not _UNKEEPABLE.search(text):
        return []
    what = "a NUL character" if "\0" in text else "half a surrogate pair"
    return [f"{where}: must not contain {what}"]


def _shown(key: str) -> str:
    """For the path of a fault: printable, and no longer than a line."""
    short = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
    return short if short.isprintable() else ascii(short)[1:-1]
