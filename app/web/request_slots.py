"""A WSGI layer that reads each request whole, and passes a few at a time to the application."""

import io
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.connections.answers import build_error_body
from app.connections.client_socket import ClientSocket, ClientTooSlow, find_request_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SLOT_KEY = "slurm_proxy.request_slot"  # in the environment of a request

_LENGTH = re.compile(r"[0-9]{1,18}")
_BROKEN_BODY = build_error_body(
    "bad_request", "the body of the request is incomplete, or its transfer coding is not valid"
)


class RequestSlot:
    """The slot of one request, which the request gives back while it waits for a change of a task."""

    def __init__(
        self, slots: threading.Semaphore, waiting: threading.Semaphore, client: ClientSocket | None
    ) -> None:
        """Create a slot that is taken; `waiting`: counts how many more requests may wait."""
        self._slots = slots
        self._waiting = waiting
        self._client = client

    @contextmanager
    def give_back(self) -> Iterator[bool]:
        """Give the slot to other requests during the block; yield False, and keep it, if too many wait."""
        if not self._waiting.acquire(blocking=False):
            yield False
            return
        try:
            if self._client is not None:
                self._client.begin_wait()
            self._slots.release()
            try:
                yield True
            finally:
                self._slots.acquire()
                if self._client is not None:
                    self._client.begin_work()
        finally:
            self._waiting.release()

    def has_client_left(self) -> bool:
        """Return whether the client has closed its connection."""
        return self._client is not None and self._client.has_client_left()


class RequestSlots:
    """A WSGI application that runs another one for a limited number of requests at a time.

    Each request is read before it gets a slot, so a client that sends its body slowly holds none. A request
    finds its slot in its environment, as SLOT_KEY.
    """

    def __init__(
        self, application: "WSGIApplication", slots: int, max_waiting: int, max_body_bytes: int
    ) -> None:
        """Wrap `application`.

        Args:
            application: The application.
            slots: The number of requests at a time.
            max_waiting: The number of further requests that may wait for changes of tasks.
            max_body_bytes: The largest body that is read.
        """
        self._application = application
        self._slots = threading.BoundedSemaphore(slots)
        self._waiting = threading.BoundedSemaphore(max_waiting)
        self._max_body_bytes = max_body_bytes

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Read the request, wait for a slot, and run the application."""
        is_whole = self._read_body(environ)
        found = find_request_socket(environ)
        client = found if isinstance(found, ClientSocket) else None
        if client is not None:
            client.begin_work()
        if not is_whole:
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(_BROKEN_BODY)))]
            start_response("400 BAD REQUEST", [*headers, ("Connection", "close")])
            return [_BROKEN_BODY]
        environ[SLOT_KEY] = RequestSlot(self._slots, self._waiting, client)
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
