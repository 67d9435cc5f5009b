"""Describe the faults of a request in sentences, each with the path of its field."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from app.close_matches import MAX_WORD_LENGTH, suggest_similar_word

_MANY_KEYS = 10  # so many known keys are not listed in an error
_WORDS = {
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
}


def describe_fault(model: type[BaseModel], fault: Mapping[str, Any], root: str) -> str:
    """Return the sentence for one of pydantic's errors about a value of `model` that stands at `root`."""
    path = root
    for part in fault["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{str(part)[:MAX_WORD_LENGTH]}"
    if fault["type"] == "extra_forbidden":
        words = f"is not known; {_suggested_key(model, fault['loc'])}"
    else:
        words = _WORDS.get(fault["type"], fault["msg"])
    return f"{path.lstrip('.') or 'body'}: {words}"


def normalize_key(key: str) -> str:
    """Return a key as it is compared with known ones: as short as they are, in lower case, without dashes."""
    return key[:MAX_WORD_LENGTH].lower().replace("-", "_")


def _suggested_key(model: type[BaseModel], loc: Sequence[str]) -> str:
    """Return a suggestion for the unknown key at `loc`, or else where the known keys are listed."""
    *parents, key = loc
    for parent in parents:
        model = cast("type[BaseModel]", model.model_fields[parent].annotation)
    known = list(model.model_fields)
    all_known = (
        f"known here: {', '.join(known)}" if len(known) < _MANY_KEYS else "GET /docs lists the known keys"
    )
    return suggest_similar_word(normalize_key(key), known, all_known)
