"""A WSGI layer that reads each request whole, and passes a few at a time to the application."""

import io
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from app.connections.answers import build_error_body
from app.connections.client_socket import ClientSocket, ClientTooSlow, find_request_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_LENGTH = re.compile(r"[0-9]{1,18}")
_BROKEN_BODY = build_error_body(
    "bad_request", "the body of the request is incomplete, or its transfer coding is not valid"
)


class RequestSlots:
    """A WSGI application that runs another one for a limited number of requests at a time.

    Each request is read before it gets a slot, so a client that sends its body slowly holds none.
    """

    def __init__(self, application: "WSGIApplication", slots: int, max_body_bytes: int) -> None:
        """Wrap `application`; `slots`: the number of requests at a time."""
        self._application = application
        self._slots = threading.BoundedSemaphore(slots)
        self._max_body_bytes = max_body_bytes

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Read the request, wait for a slot, and run the application."""
        is_whole = self._read_body(environ)
        if isinstance(client := find_request_socket(environ), ClientSocket):
            client.begin_work()
        if not is_whole:
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(_BROKEN_BODY)))]
            start_response("400 BAD REQUEST", [*headers, ("Connection", "close")])
            return [_BROKEN_BODY]
        with self._slots:
            return self._application(environ, start_response)

    def _read_body(self, environ: "WSGIEnvironment") -> bool:
        """Read the body into memory; return False for a broken or incomplete body.

        A body that is too large is left unread, for the application to refuse. A chunked body gets a length:
        Werkzeug would truncate a chunked body that is too large.
        """
        length = environ.get("CONTENT_LENGTH", "")
        is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        if is_chunked:
            size = self._max_body_bytes + 1
        elif not length:
            return True
        elif _LENGTH.fullmatch(length) is None:
            return False
        elif int(length) > self._max_body_bytes:
            return True
        else:
            size = int(length)
        try:
            body = environ["wsgi.input"].read(size)
        except ClientTooSlow:
            raise
        except Exception:  # each server has its own exceptions for a broken body
            return False
        environ["wsgi.input"] = io.BytesIO(body)
        if is_chunked:
            del environ["HTTP_TRANSFER_ENCODING"]
            environ["CONTENT_LENGTH"] = str(len(body))
        return is_chunked or len(body) == size
