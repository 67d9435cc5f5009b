"""The caller's own words, with their placeholders filled."""

import re
import string
from collections.abc import Mapping

# What `${…}` may name. There is nothing else: no expressions, no loops, no nesting.
PLACEHOLDERS = (
    "task_uuid",
    "slurm_job_id",
    "slurm_job_state",
    "event",
    "name",
    "username",
    "exit_code",
    "run_time",
    "output",
    "error_output",
)
_LONGEST_GROWN = 8192  # characters that words may grow to by their placeholders
_LONGEST_LINE = 900  # characters; mail allows 998 bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class _Braced(string.Template):
    """`${name}` alone is a placeholder: a bare $ is common in what callers write about shells."""

    pattern = r"\$(?:(?P<escaped>(?!))|(?P<named>(?!))|\{(?P<braced>[a-z_]+)\}|(?P<invalid>(?!)))"  # type: ignore[assignment]


def filled(words: str, values: Mapping[str, object]) -> str:
    """`words` with the placeholders replaced, once; a word that is none of them stays as it is."""
    known = {name: values.get(name) for name in PLACEHOLDERS}
    result = _Braced(words).safe_substitute(
        {name: "" if value is None else str(value) for name, value in known.items()}
    )
    longest = max(len(words), _LONGEST_GROWN)
    return result if len(result) <= longest else result[: longest - 1] + "…"


def one_line(words: str) -> str:
    """Fit for a header: whatever would begin a new line is a blank."""
    line = _CONTROL.sub(" ", words).strip()
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"
