"""The log: one line for each thing that happened, with the id of the request that it happened in."""

import logging
import sys
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

from app.access.audit import open_trail
from app.constants import Settings
from app.errors import SettingsError

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s"


class _Text(logging.Formatter):
    """Nothing that a caller sent can begin a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = _one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - the library's name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"  {_one_line(line)}" for line in lines)


def configure(settings: Settings) -> None:
    """Of the libraries warnings, of our own what LOG_LEVEL says; to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(_JSON) if settings.LOG_FORMAT == "json" else _Text(_TEXT))
    handler.addFilter(_with_request_id)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("app").setLevel(settings.LOG_LEVEL)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # requests are told by our own lines
    try:
        open_trail(settings.AUDIT_LOG_PATH)
    except OSError as error:
        raise SettingsError(f"AUDIT_LOG_PATH: {error}") from error


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
