"""The placeholders in the caller's own subject and text."""

import re
import string
from collections.abc import Mapping

# The names that `${…}` may have. There are no expressions, no loops and no nesting.
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
_MAX_FILLED_LENGTH = 8192  # characters; longer only if the text was longer before
_MAX_LINE_LENGTH = 900  # characters; mail allows 998 bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class _Braced(string.Template):
    """A template in which only `${name}` is a placeholder, as a bare $ is common in text about shells."""

    pattern = r"\$(?:(?P<escaped>(?!))|(?P<named>(?!))|\{(?P<braced>[a-z_]+)\}|(?P<invalid>(?!)))"  # type: ignore[assignment]


def fill_placeholders(words: str, values: Mapping[str, object]) -> str:
    """Return the text with its placeholders replaced, once; an unknown placeholder stays as it is."""
    known = {name: values.get(name) for name in PLACEHOLDERS}
    result = _Braced(words).safe_substitute(
        {name: "" if value is None else str(value) for name, value in known.items()}
    )
    longest = max(len(words), _MAX_FILLED_LENGTH)
    return result if len(result) <= longest else result[: longest - 1] + "…"


def to_one_line(words: str) -> str:
    """Return the text as one line that fits into a header; control characters become blanks."""
    line = _CONTROL.sub(" ", words).strip()
    return line if len(line) <= _MAX_LINE_LENGTH else line[: _MAX_LINE_LENGTH - 1] + "…"
