"""Suggest a known word for an unknown one, but only if the two are similar."""

import difflib
from collections.abc import Iterable

LONGEST_WORD = 60  # characters that are compared
# A ratio of difflib: 0.95 for "partitions" and `partition`, 0.40 for "mail_type" and `mem_per_cpu`, 0.78 for
# "time_limit" and `time_min`.
_ALIKE = 0.8


def nearest_word(word: str, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """Return the known word most similar to `word`; None if no ratio reaches `alike` (0 to 1)."""
    return next(iter(difflib.get_close_matches(word[:LONGEST_WORD], known, n=1, cutoff=alike)), None)


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the question whether the nearest known word is meant, or `otherwise` if none is near."""
    near = nearest_word(word, known)
    return otherwise if near is None else f"did you mean {near}?"
