"""Text for bash: quote values, and recognize text after which quotes have their usual meaning."""

import json
import re

# Stricter than bash: quoted text has no substitutions, in which quotes would begin anew.
_CLOSED = re.compile(
    r"""(?:
        [^\\'"`$#<()\[\]{}]                # an ordinary character
      | \\.                                # an escaped one
      | '[^']*'
      | "(?:[^"\\`$]|\\.|\$(?![({]))*"
      | \$(?!['"({\[])                     # a variable such as $HOME
      | (?<=[^\s;&|<>])\#                  # within a word it begins no comment
      | <(?!<) | <<<                       # no here-document
      | (?<!\[)\[(?!\[) | (?<!\])\](?!\])  # a pattern such as [0-9], no condition
    )*""",
    re.DOTALL | re.VERBOSE,
)


def quote(word: str) -> str:
    """Return a word for bash to take literally.

    Every word is quoted. shlex.quote leaves `A=b` and `time` as they are, which bash would read as an
    assignment and as a keyword.
    """
    return "'" + word.replace("'", "'\\''") + "'"


def to_text(value: object) -> str:
    """Return the text of a string, a number or a boolean."""
    return value if isinstance(value, str) else json.dumps(value)


def is_closed(text: str) -> bool:
    """Return whether bash reads quotes as usual after this text and a blank.

    False for text with an open quote, a comment, a substitution, a condition, a group or a here-document.
    """
    return _CLOSED.fullmatch(text) is not None
