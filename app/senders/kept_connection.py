"""A connection that outlives a message, for those that follow at once."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from app.senders.deadline import Deadline

_Connection = TypeVar("_Connection")


class KeptConnection(Generic[_Connection]):
    """At most one is kept. Thread-safe: whoever takes it has it alone.

    Whatever is done with it for one message, from opening it on, has one deadline.
    """

    def __init__(
        self,
        open_: Callable[[Deadline], _Connection],
        watch: Callable[[_Connection, Deadline], object],
        is_alive: Callable[[_Connection], bool],
        close: Callable[[_Connection], object],
        seconds: float,
    ) -> None:
        """`is_alive` and `close` raise nothing; what `open_` returns is watched already."""
        self._open = open_
        self._watch = watch
        self._is_alive = is_alive
        self._close = close
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue(1)

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """Yield the kept one if it is still good, else a new one. After an error inside it is closed.

        Raises:
            TimeoutError: The time for this message is over.
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

    def rest(self) -> None:
        """Close what is kept."""
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
