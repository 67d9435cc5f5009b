"""A WSGI layer that reads requests whole, and passes a few at a time to the application."""

import io
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from werkzeug.exceptions import BadRequest

from app.connections.client_socket import ClientSocket, ClientTooSlow

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class RequestSlots:
    """Runs an application for a limited number of requests at a time.

    Each request is read before, so a client that sends its body slowly holds no slot.
    """

    def __init__(self, application: "WSGIApplication", slots: int, max_body_bytes: int) -> None:
        self._application = application
        self._slots = threading.BoundedSemaphore(slots)
        self._max_body_bytes = max_body_bytes

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self._read_body(environ)
        for name in _SOCKETS:
            if isinstance(client := environ.get(name), ClientSocket):
                client.begin_work()
        with self._slots:
            return self._application(environ, start_response)

    def _read_body(self, environ: "WSGIEnvironment") -> None:
        """Read the body into memory, unless it is too large: the application then refuses it unread.

        A chunked body gets a length: Werkzeug would truncate a chunked body that is too large.
        """
        length = environ.get("CONTENT_LENGTH", "")
        is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        if is_chunked:
            size = self._max_body_bytes + 1
        elif length.isdigit() and int(length) <= self._max_body_bytes:
            size = int(length)
        else:
            return
        try:
            body = environ["wsgi.input"].read(size)
        except ClientTooSlow:
            raise
        except Exception:  # each server has its own exceptions for a broken body
            environ["wsgi.input"] = _BrokenBody()
        else:
            environ["wsgi.input"] = io.BytesIO(body)
            if is_chunked:
                del environ["HTTP_TRANSFER_ENCODING"]
                environ["CONTENT_LENGTH"] = str(len(body))


class _BrokenBody(io.RawIOBase):
    """A body in a broken transfer coding; reading it raises BadRequest, which is answered 400."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> NoReturn:
        raise BadRequest("the body of the request is not in a valid transfer coding")
