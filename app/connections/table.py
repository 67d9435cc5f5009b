"""The table of a process's open connections, which closes some of them if there are too many."""

import errno
import logging
import resource
import socket
import sys
import threading
import time

from app.connections.client_socket import ClientSocket, Phase
from app.connections.event_counter import EventCounter
from app.constants import Settings

logger = logging.getLogger(__name__)

_BROKEN_LISTENER = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
_NOTHING_TO_ACCEPT = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)
_ACCEPT_PAUSE = 0.05  # seconds
_MIN_WAIT = 0.1  # seconds; a connection that has waited for less is not evicted
_EVICTION_GRACE = 0.5  # seconds in which the thread of an evicted connection may read what has arrived


class ConnectionTable:
    """The open connections of one process. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Create an empty table with the time-outs and the limit of the settings.

        `max_waiting` requests may wait for changes of tasks, each on its connection.
        """
        self.request_seconds = settings.CLIENT_REQUEST_TIMEOUT_SECONDS
        self.response_seconds = settings.CLIENT_RESPONSE_TIMEOUT_SECONDS
        self.capacity = _choose_capacity(settings.LIMIT_CONNECTIONS, _get_open_files_limit())
        self.max_waiting = self.capacity // 2
        self.lock = threading.Condition()
        self._open: set[ClientSocket] = set()
        self._slow = EventCounter(logger, "closed %d connections: clients were too slow, or too many")
        self._unreadable = EventCounter(
            logger, "refused %d requests that cannot be read (the answers say why)"
        )

    def add(self, accepted: socket.socket) -> ClientSocket:
        """Add an accepted connection; return it as a socket with deadlines."""
        client = ClientSocket(accepted, self)
        with self.lock:
            self._open.add(client)
        return client

    def remove(self, client: ClientSocket) -> None:
        """Remove a connection that was closed."""
        with self.lock:
            self._open.discard(client)
            self.lock.notify_all()

    def make_room(self) -> None:
        """Evict the connections that have waited longest for their clients, if the table is nearly full.

        Connections that wait for their clients may take half of what waiting requests leave of the table. If
        requests at work take the rest, the server is busy and not attacked, and the next connection has to
        wait.
        """
        with self.lock:
            if len(self._open) > self.capacity - self.capacity // 8:
                evictable = sum(client.is_evictable for client in self._open)
                waiting = sum(client.is_waiting for client in self._open)
                self._evict(evictable - (self.capacity - waiting) // 2)

    def wait_for_room(self, seconds: float) -> bool:
        """Wait up to `seconds` for room for another connection; return whether there is room."""
        with self.lock:
            return self.lock.wait_for(lambda: len(self._open) < self.capacity, seconds)

    def evict_reading(self) -> None:
        """Stop waiting for requests that have not arrived yet."""
        with self.lock:
            for client in self._open:
                if client.phase is Phase.READING:
                    client.evict(_EVICTION_GRACE)

    def handle_accept_error(self, error: OSError) -> None:
        """Make room after an accept() that failed because files or memory ran out.

        Raises:
            OSError: The listening socket itself cannot be used.
        """
        if error.errno in _BROKEN_LISTENER:
            raise error
        if error.errno not in _NOTHING_TO_ACCEPT:
            with self.lock:
                self._evict(1)
            time.sleep(_ACCEPT_PAUSE)  # the connection still waits to be accepted: do not spin

    def count_slow_client(self) -> None:
        """Count a connection that was closed because of its client."""
        self._slow.add()

    def count_unreadable_request(self) -> None:
        """Count a request that cannot be read; no part of it is logged, because it may contain a key."""
        self._unreadable.add()

    def _evict(self, count: int) -> None:
        """Evict up to `count` connections, those that have waited longest first.

        A connection whose request has arrived is kept: the server was too busy to read it.
        """
        latest = time.monotonic() - _MIN_WAIT
        waiting = [client for client in self._open if client.is_evictable and client.began < latest]
        for client in sorted(waiting, key=lambda client: client.began):
            if count <= 0:
                return
            if not client.has_unread_request():
                client.evict(_EVICTION_GRACE)
                self.count_slow_client()
                count -= 1


def _choose_capacity(wanted: int, open_files: int) -> int:
    """Return how many connections to keep open; warn if the limit on open files allows fewer than wanted."""
    possible = open_files // 2
    if possible < wanted:
        logger.warning(
            "LIMIT_CONNECTIONS is %d, but this process keeps at most %d connections open, half of its limit"
            " on open files: raise that limit (LimitNOFILE of systemd)",
            wanted,
            possible,
        )
    return min(wanted, possible)


def _get_open_files_limit() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
