"""Suggest a known word for an unknown one, but only if the two are similar."""

import difflib
from collections.abc import Iterable

MAX_WORD_LENGTH = 60  # characters that are compared
# A ratio of difflib: 0.95 for "partitions" and `partition`, 0.40 for "mail_type" and `mem_per_cpu`, 0.78 for
# "time_limit" and `time_min`.
_MIN_SIMILARITY = 0.8


def find_similar_word(word: str, known: Iterable[str], min_similarity: float = _MIN_SIMILARITY) -> str | None:
    """Return the known word most similar to `word`; None if no word has `min_similarity` (0 to 1)."""
    found = difflib.get_close_matches(word[:MAX_WORD_LENGTH], known, n=1, cutoff=min_similarity)
    return found[0] if found else None


def suggest_similar_word(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the question whether the most similar known word is meant, or `otherwise` if none is similar."""
    similar = find_similar_word(word, known)
    return otherwise if similar is None else f"did you mean {similar}?"
