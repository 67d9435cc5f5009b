"""Recognize regular expressions that need seconds or hours for some texts."""

import re
import time

# A slow expression tries all ways to divide the beginning of a text that does not match because of its end.
_BEGINNINGS = ("a", "A", "0", "a.", "aA", "a1", "a-", "a_", "a@")
_MAX_OWN_BEGINNINGS = 20  # letters and digits of the pattern itself
_ENDS = ("-", "-+", "-$")
_LENGTHS = (12, 16, 20, 24, 28, 40, 60, 90, 130, 190, 255)  # in small steps: each may take many times longer
_MAX_SECONDS = 0.02  # of this thread's computing time


def is_slow_pattern(pattern: str) -> bool:
    """Return whether matching a text of at most 257 characters takes long; some slow patterns are not found.

    While Python matches a regular expression, no other thread of the process runs.
    """
    compiled = re.compile(pattern)
    own = sorted(set(filter(str.isalnum, pattern)))[:_MAX_OWN_BEGINNINGS]
    for beginning in (*_BEGINNINGS, *own):
        for length in _LENGTHS:
            for end in _ENDS:
                text = (beginning * length)[:length] + end
                began = time.thread_time()
                compiled.fullmatch(text)
                if time.thread_time() - began > _MAX_SECONDS:
                    return True
    return False
