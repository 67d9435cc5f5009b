"""The open connections of one process, and the choice of those to close where they are too many."""

import errno
import logging
import resource
import socket
import sys
import threading
import time

from app.connections.client_socket import ClientSocket, Phase
from app.constants import Settings

logger = logging.getLogger(__name__)

_BROKEN_LISTENER = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
_NOTHING_TO_ACCEPT = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)
_ACCEPT_PAUSE = 0.05  # seconds
_UNEVICTED_SECONDS = 0.1  # how long a connection has at least, however many there are
_ARRIVED_SECONDS = 0.5  # how long a thread may take to read what has already arrived
_LOG_INTERVAL = 60.0  # seconds


class ConnectionTable:
    """The open connections of one process."""

    def __init__(self, settings: Settings) -> None:
        self.request_seconds = settings.CLIENT_REQUEST_TIMEOUT_SECONDS
        self.response_seconds = settings.CLIENT_RESPONSE_TIMEOUT_SECONDS
        self.capacity = min(settings.LIMIT_CONNECTIONS, _open_files_limit() // 2)
        self.lock = threading.Condition()
        self._open: set[ClientSocket] = set()
        self._slow = 0
        self._logged = -_LOG_INTERVAL

    def add(self, accepted: socket.socket) -> ClientSocket:
        """Return an accepted connection with deadlines."""
        client = ClientSocket(accepted, self)
        with self.lock:
            self._open.add(client)
        return client

    def remove(self, client: ClientSocket) -> None:
        with self.lock:
            self._open.discard(client)
            self.lock.notify_all()

    def make_room(self) -> None:
        """Evict the connections that have waited longest for their clients, where there are nearly too many.

        Those that wait may keep half of the places. A server that is full of requests at work is busy, not
        attacked: then the next connection has to wait.
        """
        with self.lock:
            if len(self._open) > self.capacity - self.capacity // 8:
                waiting = sum(client.is_evictable for client in self._open)
                self._evict(waiting - self.capacity // 2)

    def wait_for_room(self, seconds: float) -> bool:
        """Return whether another connection may be accepted, within that time."""
        with self.lock:
            return self.lock.wait_for(lambda: len(self._open) < self.capacity, seconds)

    def evict_reading(self) -> None:
        """End the waiting for requests that have not arrived yet."""
        with self.lock:
            for client in self._open:
                if client.phase is Phase.READING:
                    client.evict(_ARRIVED_SECONDS)

    def handle_accept_error(self, error: OSError) -> None:
        """Make room after an accept() that failed for want of files or memory.

        Raises:
            OSError: The listening socket itself cannot be used.
        """
        if error.errno in _BROKEN_LISTENER:
            raise error
        if error.errno not in _NOTHING_TO_ACCEPT:
            with self.lock:
                self._evict(1)
            time.sleep(_ACCEPT_PAUSE)  # the connection still waits to be accepted: do not spin

    def count_slow(self) -> None:
        """Count a connection that was closed because of its client; log at most once a minute."""
        with self.lock:
            self._slow += 1
            now = time.monotonic()
            if now - self._logged >= _LOG_INTERVAL:
                logger.warning("closed %d connections: clients were too slow, or too many", self._slow)
                self._logged, self._slow = now, 0

    def _evict(self, count: int) -> None:
        """Evict the oldest, but none whose request has arrived while the server is too busy to read it."""
        latest = time.monotonic() - _UNEVICTED_SECONDS
        waiting = [client for client in self._open if client.is_evictable and client.began < latest]
        for client in sorted(waiting, key=lambda client: client.began):
            if count <= 0:
                return
            if not client.has_unread_request():
                client.evict(_ARRIVED_SECONDS)
                self.count_slow()
                count -= 1


def _open_files_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
