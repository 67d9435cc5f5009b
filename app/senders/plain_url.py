"""The rule for URLs that a webhook may have."""

import re
import unicodedata
from urllib.parse import unquote, urlsplit

# Dot segments, as the most lenient servers read them: before a parameter (`..;`) or a NUL, or between blanks.
_DOT_SEGMENT = re.compile(r"(^|[/\\])\s*\.{1,2}\s*([/\\;?#\0]|$)")
# Without this pattern Python takes ::1 from "[::1].example.com".
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]*)?")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def require_plain_url(value: str) -> str:
    """Return `value` if every server and proxy reads the URL alike.

    Raises:
        ValueError: `value` is no such URL.
    """
    parts = urlsplit(value)
    if (
        not value.isascii()
        or " " in value
        or "\\" in value
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or not _HOST.fullmatch(parts.netloc)
        or parts.port == 0
        or _BROKEN_ESCAPE.search(parts.path)
        or _DOT_SEGMENT.search(_decode_fully(parts.path))
    ):
        raise ValueError("not a plain URL")
    return value


def _decode_fully(path: str) -> str:
    """Decode a path until nothing is left to decode, because server and proxies may each decode paths.

    Raises:
        ValueError: The path is not UTF-8, which could hide a dot in a longer form.
    """
    while (once := unicodedata.normalize("NFKC", unquote(path, errors="strict"))) != path:
        path = once
    return path
