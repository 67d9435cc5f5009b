"""Describe the faults of a request in sentences, each with the path of its field."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from app.close_matches import MAX_WORD_LENGTH, suggest_similar_word

_MAX_LISTED_KEYS = 10  # in an error
_SENTENCES = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
}


def describe_fault(model: type[BaseModel], fault: Mapping[str, Any], root: str) -> str:
    """Return a sentence about one of pydantic's errors.

    Args:
        model: The model that was validated.
        fault: The error, as pydantic lists it.
        root: The path of the validated value in the body.
    """
    path = root
    for part in fault["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{str(part)[:MAX_WORD_LENGTH]}"
    if fault["type"] == "extra_forbidden":
        words = f"is not known; {_suggest_key(model, fault['loc'])}"
    else:
        words = _SENTENCES.get(fault["type"], fault["msg"])
    return f"{path.lstrip('.') or 'body'}: {words}"


def normalize_key(key: str) -> str:
    """Return a key in the form that is compared with known keys: short, in lower case, with underscores."""
    return key[:MAX_WORD_LENGTH].lower().replace("-", "_")


def _suggest_key(model: type[BaseModel], loc: Sequence[str]) -> str:
    """Return a suggestion for the unknown key at `loc`, or else where the known keys are listed."""
    *parents, key = loc
    for parent in parents:
        model = cast("type[BaseModel]", model.model_fields[parent].annotation)
    known = list(model.model_fields)
    all_known = (
        f"known here: {', '.join(known)}"
        if len(known) < _MAX_LISTED_KEYS
        else "GET /docs lists the known keys"
    )
    return suggest_similar_word(normalize_key(key), known, all_known)
