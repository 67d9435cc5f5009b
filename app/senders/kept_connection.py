"""A connection that is kept open after a message, for messages that follow at once."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from app.senders.deadline import Deadline

_Connection = TypeVar("_Connection")


class KeptConnection(Generic[_Connection]):
    """A holder of at most one idle connection. Thread-safe: only one thread uses a connection at a time.

    All that is done with a connection for one message, including its opening, has one deadline.
    """

    def __init__(
        self,
        open_: Callable[[Deadline], _Connection],
        watch: Callable[[_Connection, Deadline], object],
        is_alive: Callable[[_Connection], bool],
        close: Callable[[_Connection], object],
        seconds: float,
    ) -> None:
        """Begin without a connection.

        Args:
            open_: Returns a new connection that the deadline watches already.
            watch: Lets another deadline watch a connection.
            is_alive: Returns whether the server has not closed the connection; raises nothing.
            close: Closes a connection; raises nothing.
            seconds: The time for each message.
        """
        self._open = open_
        self._watch = watch
        self._is_alive = is_alive
        self._close = close
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue(1)

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """Yield the kept connection if still usable, else a new one; close either after an error.

        Raises:
            TimeoutError: The deadline of this message has passed.
        """
        with Deadline(self._seconds) as deadline:
            connection = self._kept(deadline) or self._open(deadline)
            try:
                yield connection
            except BaseException:
                self._close(connection)
                raise
            try:
                self._idle.put_nowait(connection)
            except queue.Full:
                self._close(connection)

    def close_idle(self) -> None:
        """Close the kept connection, if there is one."""
        with suppress(queue.Empty, OSError), Deadline(self._seconds) as deadline:
            connection = self._idle.get_nowait()
            self._watch(connection, deadline)
            self._close(connection)

    def _kept(self, deadline: Deadline) -> _Connection | None:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return None
        with suppress(OSError):
            self._watch(connection, deadline)
            if self._is_alive(connection):
                return connection
        self._close(connection)
        return None
