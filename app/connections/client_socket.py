"""The socket of one client, with deadlines for whole requests and whole answers."""

import errno
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from app.connections.answers import build_error_answer
from app.connections.peer_user import PeerUser, find_peer_user

if TYPE_CHECKING:
    from app.connections.table import ConnectionTable

_ENVIRON_KEYS = ("gunicorn.socket", "werkzeug.socket")
_HANG_UP = getattr(select, "POLLRDHUP", 0)  # of Linux; poll() always reports POLLHUP and POLLERR
_REQUEST_TIMEOUT = build_error_answer(
    HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request did not arrive in time; send it again"
)


def find_request_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket that a request came from; None if the WSGI server does not pass it on."""
    found = (environ.get(key) for key in _ENVIRON_KEYS)
    return next((client for client in found if isinstance(client, socket.socket)), None)


class ClientTooSlow(ConnectionResetError):
    """The error of a client that took too long to send its request or to read its answer.

    Both servers treat this error like a connection that the client has closed: neither logs it.
    """

    def __init__(self) -> None:
        """Create the error with the number and the message that the servers expect."""
        super().__init__(errno.ECONNRESET, "the client was too slow")


class Phase(Enum):
    """The work of a connection; in every phase but WORKING and WAITING the server waits for the client."""

    IDLE = auto()
    READING = auto()
    WORKING = auto()
    WAITING = auto()  # the request waits for a change of a task
    WRITING = auto()


class ClientSocket(socket.socket):
    """A client's socket with one deadline for a whole request and one for its whole answer.

    A read or a write raises ClientTooSlow at its deadline, even if single bytes keep arriving.
    """

    def __init__(self, accepted: socket.socket, table: "ConnectionTable") -> None:
        """Take over an accepted socket, which cannot be used by itself any more."""
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._table = table
        self.is_evicted = False
        self.begin_request()

    def begin_request(self) -> None:
        """Start the deadline of the next request on this connection."""
        self.began = time.monotonic()
        self.phase = Phase.READING
        self._has_received = False
        self._has_answered = False
        self._answer_deadline: float | None = None
        if not self.is_evicted:
            self._deadline = self.began + self._table.request_seconds

    def begin_work(self) -> None:
        """Mark the request as read, because the server does not wait for the client from here on."""
        self.phase = Phase.WORKING

    def begin_wait(self) -> None:
        """Mark the request as one that waits for a change of a task."""
        self.phase = Phase.WAITING

    def become_idle(self) -> None:
        """Mark the connection as one between two requests."""
        self.phase = Phase.IDLE

    def begin_linger(self, seconds: float) -> None:
        """Start the deadline for data that a client still sends after its answer."""
        self._deadline = time.monotonic() + seconds
        self._has_received = False  # the data belong to no further request

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive data before the deadline of the request.

        Raises:
            ClientTooSlow: The deadline has passed, or the connection was evicted.
        """
        self.phase = Phase.READING
        data: bytes = self._run_until(self._deadline, super().recv, bufsize, flags)
        self._record_received(bool(data))
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """Receive into a buffer, before the deadline of the request.

        After the answer, an error counts as the end of the data. Werkzeug 3.1 reads on after its answer, and
        leaks a file descriptor if that raises an exception.

        Raises:
            ClientTooSlow: The deadline has passed, or the connection was evicted, before the answer.
        """
        self.phase = Phase.READING
        try:
            count: int = self._run_until(self._deadline, super().recv_into, buffer, nbytes, flags)
            self._record_received(count > 0)
        except OSError:
            if not self._has_answered:
                raise
            return 0
        return count

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send data before the deadline of the answer; return how many bytes were sent.

        Raises:
            ClientTooSlow: The deadline has passed.
        """
        count: int = self._write(super().send, data, flags)
        return count

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all data before the deadline of the answer.

        Raises:
            ClientTooSlow: The deadline has passed.
        """
        self._write(super().sendall, data, flags)

    def send_timeout_answer(self) -> None:
        """Send the answer 408, unless the client sent nothing of a request or has an answer already."""
        if self._has_received and not self._has_answered:
            with suppress(OSError):
                self.sendall(_REQUEST_TIMEOUT)

    def evict(self, grace: float) -> None:
        """Stop waiting for this client; data that has arrived is still read within `grace` seconds."""
        self.is_evicted = True
        self._deadline = min(self._deadline, time.monotonic() + grace)
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR if self.phase is Phase.WRITING else socket.SHUT_RD)

    def has_unread_request(self) -> bool:
        """Return whether data of a request has arrived that the connection's thread has not read yet."""
        return self.phase is Phase.READING and not self._has_answered and self.wait_for_data(0)

    def wait_for_data(self, seconds: float) -> bool:
        """Wait for data of the client, or for the end of the connection; return whether there is either."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def close(self) -> None:
        """Close the socket, and remove the connection from the table."""
        with self._table.lock:  # an eviction must not use a file descriptor that has a new owner already
            super().close()
            self._table.remove(self)

    @cached_property
    def peer_user(self) -> PeerUser:
        """Return the kind of user whose process the client is. The kernel is asked once, at the first use."""
        return find_peer_user(self)

    @property
    def is_evictable(self) -> bool:
        """Return whether the server waits for the client, and the connection is not evicted yet."""
        return self.phase not in (Phase.WORKING, Phase.WAITING) and not self.is_evicted

    @property
    def is_waiting(self) -> bool:
        """Return whether the request waits for a change of a task."""
        return self.phase is Phase.WAITING

    def has_client_left(self) -> bool:
        """Return whether the client has closed the connection, or its own half of it."""
        poll = select.poll()
        poll.register(self, _HANG_UP)
        return bool(poll.poll(0))

    def _write(self, write: Callable[..., Any], data: Any, flags: int) -> Any:
        """Write a part of the answer; the first part starts the deadline of the answer."""
        phase, self.phase = self.phase, Phase.WRITING
        if self._answer_deadline is None:
            self._answer_deadline = time.monotonic() + self._table.response_seconds
        try:
            return self._run_until(self._answer_deadline, write, data, flags)
        finally:
            self.phase = phase
            self._has_answered = self._has_answered or not bytes(data[:12]).endswith(b" 100")
            if not self._has_answered:  # it was "100 Continue"
                self._answer_deadline = None

    def _run_until(self, deadline: float, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Run an operation until the deadline, or until the socket's own time-out; return its result.

        Raises:
            ClientTooSlow: The deadline has passed.
        """
        own_timeout = self.gettimeout()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            self._raise_too_slow()
        self.settimeout(remaining if own_timeout is None else min(own_timeout, remaining))
        try:
            return operation(*arguments)
        except TimeoutError:
            if time.monotonic() >= deadline:
                self._raise_too_slow()
            raise
        finally:
            self.settimeout(own_timeout)

    def _record_received(self, has_data: bool) -> None:
        """Record whether the client sent data.

        Raises:
            ClientTooSlow: The connection was evicted, and there are no more data.
        """
        if not has_data and self.is_evicted:
            raise ClientTooSlow
        self._has_received = self._has_received or has_data

    def _raise_too_slow(self) -> NoReturn:
        """Count the client if it began a request, and raise ClientTooSlow."""
        if self._has_received and not self.is_evicted:
            self._table.count_slow_client()
        raise ClientTooSlow
