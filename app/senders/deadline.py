"""One deadline for all that a message needs on the network, however slowly the server answers.

The time-out of a socket counts from one packet to the next: a server that sends a byte every few seconds
would block a channel for ever.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from app.errors import DeliveryFailed

MAX_ANSWER = 1024 * 1024  # bytes of all that a server answers to one message


class Deadline:
    """A context that shuts down all watched sockets once the time is over.

    The error that follows leaves the context as a TimeoutError. The look-up of a host's name is not covered:
    the system's resolver has time-outs of its own.
    """

    def __init__(self, seconds: float) -> None:
        """Set the deadline to so many seconds from now."""
        self.seconds = seconds
        self._ends = time.monotonic() + seconds
        self._watched: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        """Start the timer."""
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the timer and the watching.

        Raises:
            TimeoutError: The deadline has passed, and the context ended with an error.
        """
        self._timer.cancel()
        with self._lock:
            for duplicate in self._watched:
                duplicate.close()
            self._watched.clear()
        if self.left <= 0 and isinstance(error, Exception) and not isinstance(error, DeliveryFailed):
            raise TimeoutError(f"it did not answer within {self.seconds:g} s") from error

    @property
    def left(self) -> float:
        """Return how many seconds are left."""
        return self._ends - time.monotonic()

    def watch(self, connection: socket.socket) -> None:
        """Shut down the connection at the deadline, even if TLS wraps its socket meanwhile."""
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._watched.append(duplicate)
        if self.left <= 0:
            self._shut_down()

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect to one of the addresses of `host`, and return the connection, which is watched.

        `timeout` holds for each address, the deadline for all of them.

        Raises:
            TimeoutError: The deadline has passed.
            OSError: No address accepts the connection.
        """
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if self.left <= 0:
                raise TimeoutError("the deadline has passed")
            connection = socket.socket(family, kind, protocol)
            connection.settimeout(min(timeout, self.left))
            try:
                connection.connect(address)
            except OSError as error:
                connection.close()
                failure = error
                continue
            connection.settimeout(timeout)
            self.watch(connection)
            return connection
        raise failure

    def _shut_down(self) -> None:
        with self._lock:
            for duplicate in self._watched:
                with suppress(OSError):
                    duplicate.shutdown(socket.SHUT_RDWR)
