"""Suggests a known word in place of an unknown one, but only if both are much alike."""

import difflib
from collections.abc import Iterable

LONGEST_WORD = 60  # characters that are compared
# A ratio of difflib. "partitions" is 0.95 like `partition`; "mail_type" is 0.40 like `mem_per_cpu`, and
# "time_limit" 0.78 like `time_min`.
_ALIKE = 0.8


def nearest_word(word: str, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """Return the known word that is most like `word`; None if none is at least `alike`, from 0 to 1."""
    return next(iter(difflib.get_close_matches(word[:LONGEST_WORD], known, n=1, cutoff=alike)), None)


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the question whether the nearest known word is meant, or `otherwise` if none is near."""
    near = nearest_word(word, known)
    return otherwise if near is None else f"did you mean {near}?"
