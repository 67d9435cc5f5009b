"""A connection that outlives a message, for those that follow at once."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_Connection = TypeVar("_Connection")


class KeptConnection(Generic[_Connection]):
    """At most one is kept. Thread-safe: whoever takes it has it alone."""

    def __init__(
        self,
        open_: Callable[[], _Connection],
        is_alive: Callable[[_Connection], bool],
        close: Callable[[_Connection], object],
    ) -> None:
        """`is_alive` and `close` raise nothing."""
        self._open = open_
        self._is_alive = is_alive
        self._close = close
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue(1)

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """The kept one if it is still good, else a new one. After an error inside it is closed."""
        connection = self._kept() or self._open()
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
        """Closes what is kept."""
        try:
            self._close(self._idle.get_nowait())
        except queue.Empty:
            return

    def _kept(self) -> _Connection | None:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return None
        if self._is_alive(connection):
            return connection
        self._close(connection)
        return None
