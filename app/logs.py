"""The form of the log: one line for each event, with the id of the request."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.access.audit import open_audit_trail
from app.constants import Settings
from app.errors import SlurmProxyError

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s"


class _WithoutExceptionMessages(logging.Formatter):
    """A format of tracebacks without the messages of exceptions, which may quote a request or a stored task.

    The messages of this project's own errors stay, and those of the operating system.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        return "\n".join(_traceback_lines(ei[1]))


class _Json(_WithoutExceptionMessages, JsonFormatter):
    """A format of one JSON object a line."""


class _Text(_WithoutExceptionMessages):
    """A format of plain text, in which no line begins with a caller's text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = _escape_unprintables(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"  {_escape_unprintables(line)}" for line in lines)


def configure_logging(settings: Settings) -> None:
    """Log to standard error: warnings of the libraries, and the lines of this project that LOG_LEVEL allows.

    gunicorn's own lines get the same form.

    Raises:
        SettingsError: AUDIT_LOG_PATH cannot be written.
    """
    handler = logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _set_form(handler, settings)
    configure_gunicorn_logging(settings)
    logging.getLogger("app").setLevel(settings.LOG_LEVEL)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # app/web/request_log.py logs requests
    open_audit_trail(settings.AUDIT_LOG_PATH)


def configure_gunicorn_logging(settings: Settings) -> None:
    """Give gunicorn's own lines the form of all others; call this again after each reload."""
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.setLevel(max(gunicorn.level, logging.INFO))  # its debug messages quote requests
    for handler in gunicorn.handlers:
        _set_form(handler, settings)


def _set_form(handler: logging.Handler, settings: Settings) -> None:
    handler.setFormatter(_Json(_JSON) if settings.LOG_FORMAT == "json" else _Text(_TEXT))
    handler.addFilter(_with_request_id)


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def _traceback_lines(error: BaseException | None) -> Iterator[str]:
    """Yield the lines of an error's traceback, its causes first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in reversed(chain):
        yield "Traceback (most recent call last):"
        for frames in traceback.format_tb(each.__traceback__):
            yield from frames.splitlines()
        yield f"{type(each).__module__}.{type(each).__qualname__}{_message_of(each)}"


def _message_of(error: BaseException) -> str:
    if isinstance(error, SlurmProxyError):
        return f": {error}"
    if isinstance(error, OSError) and error.errno is not None:
        return f": {error.strerror}"
    return ""


def _escape_unprintables(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
