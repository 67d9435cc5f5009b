"""Record what the service answers and sends, with placeholders for what differs from run to run."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

from flask.testing import FlaskClient

Entry = dict[str, Any]

_OMITTED_HEADERS = {"Content-Length", "Date"}
_MAX_LINE = 120  # characters; a longer text is split into pieces that are compared one by one
_NEAR = timedelta(days=3)  # a time that is nearer than this depends on the clock of the run

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?=(Z|\+00:00)?)")
_ID = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16}|[0-9a-f]{12})(?![0-9a-f])")
_BREAK = re.compile(r'(?<=\n)|(?<=\\n)(?!")|(?<=,)(?= ?["{])')  # at line ends, and in JSON texts
_EPOCH = re.compile(r"(?<![0-9.])1\d{9}(?![0-9])")
_OTHER = (
    (re.compile(r"127\.0\.0\.1:(?!(?:5001|9)\b)\d+"), "127.0.0.1:<port>"),
    (re.compile(r"cli:[^\"]+"), "cli:<user>"),
    (re.compile(r'SLURM_SUBMIT_HOST=[^"\\]+'), "SLURM_SUBMIT_HOST=<host>"),
    (re.compile(r"sp_[0-9a-f]+_[0-9A-Za-z_-]{40,}"), "sp_<key>"),
)


class Recording:
    """The entries of one scenario, by name. The same id gets the same placeholder everywhere."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Begin without entries. `texts`: a placeholder for each text to replace, such as a folder's path."""
        self.entries: dict[str, Entry] = {}
        self.has_ids = True  # whether something that looks like a generated id is one
        self._texts = texts
        self._ids: dict[str, str] = {}

    def add(self, name: str, content: Any) -> None:
        """Add an entry of any JSON content."""
        assert name not in self.entries, f"the name {name} is used twice"
        self.entries[name] = self._without_volatile(content)

    def ask(
        self, name: str, client: FlaskClient, method: str, path: str, body: Any = None, **options: Any
    ) -> None:
        """Send one request, and add the answer."""
        data = body if isinstance(body, bytes | str | None) else json.dumps(body)
        response = client.open(path, method=method, data=data, **options)
        headers = {key: value for key, value in response.headers.items() if key not in _OMITTED_HEADERS}
        if "Allow" in headers:  # werkzeug lists them in any order
            headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        headers["X-Request-Id"] = "<request>"
        if response.status_code == 429:
            headers["Retry-After"] = re.sub(r"\d+", "<seconds>", headers["Retry-After"])
        answer = {
            "request": f"{method} {path}",
            "status": response.status_code,
            "headers": headers,
            "body": response.get_data(as_text=True),
        }
        self.add(name, answer)

    def plain(self, text: str) -> str:
        """Return a text with placeholders."""
        for found, placeholder in self._texts.items():
            text = text.replace(found, placeholder)
        text = _TIME.sub(_time_placeholder, text)
        text = _EPOCH.sub(_epoch_placeholder, text)
        for pattern, placeholder in _OTHER:
            text = pattern.sub(placeholder, text)
        if not self.has_ids:
            return text
        return _ID.sub(lambda found: self._ids.setdefault(found[0], f"<id-{len(self._ids) + 1}>"), text)

    def _without_volatile(self, content: Any) -> Any:
        if isinstance(content, Mapping):
            return {self.plain(str(key)): self._without_volatile(value) for key, value in content.items()}
        if isinstance(content, str):
            return pieces(self.plain(content))
        if isinstance(content, Iterable):
            return [self._without_volatile(item) for item in content]
        return content


def pieces(text: str) -> str | list[str]:
    """Split a long text at line ends and between members of JSON objects; the pieces joined are the text."""
    if len(text) <= _MAX_LINE and "\n" not in text[:-1]:
        return text
    return [piece for piece in _BREAK.split(text) if piece]


def row_as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the SQLite store; times are milliseconds there, and JSON columns stay texts."""
    return {name: _time_if_any(value) for name, value in row.items()}


def mail_as_json(mail: EmailMessage) -> dict[str, Any]:
    """Return all headers and texts of an e-mail, without its date and the boundary between its parts."""
    parts = [_part(part) for part in mail.walk() if not part.is_multipart()]
    return {"headers": _headers(mail), "parts": parts}


def _part(part: Any) -> dict[str, Any]:
    return {"headers": _headers(part), "text": part.get_content()}


def _headers(part: Any) -> list[str]:
    listed = (f"{name}: {value}" for name, value in part.items() if name != "Date")
    return [re.sub(r'boundary="[^"]*"', 'boundary="<boundary>"', header) for header in listed]


def _time_if_any(value: Any) -> Any:
    return "<milliseconds>" if isinstance(value, int) and _is_near(value / 1000) else value


def _time_placeholder(found: re.Match[str]) -> str:
    is_near = _is_near(datetime.fromisoformat(found[0]).replace(tzinfo=UTC).timestamp())
    return "<time>" if is_near else found[0]


def _epoch_placeholder(found: re.Match[str]) -> str:
    return "<seconds>" if _is_near(int(found[0])) else found[0]


def _is_near(seconds: float) -> bool:
    return abs(seconds - datetime.now(UTC).timestamp()) < _NEAR.total_seconds()
