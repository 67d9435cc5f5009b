"""A network that fails on demand: a TCP proxy on loopback, between the service and what it calls."""

import socket
import struct
import threading
import time
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 65536


class Fault(Enum):
    NONE = "none"
    RESET = "every connection is broken off"
    HANG = "requests are taken, and never answered"
    SWALLOW = "requests arrive, and their answers are lost"


class Network:
    """Enter it to have `url`. A change of `fault` counts for new data on open connections, too."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname or "", parts.port or 80)  # for new connections
        self.fault = Fault.NONE
        self.connections = 0  # taken so far
        self.held_path: bytes | None = None  # requests with this in their paths wait until it is None
        self.held: list[bytes] = []  # the first lines of these requests
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        _reset(self._listener)
        self.cut()

    def is_quiet(self) -> bool:
        """Nothing is open."""
        with self._lock:
            return not self._sockets

    def cut(self) -> None:
        """Breaks off whatever is open, in the middle of anything."""
        with self._lock:
            for end in self._sockets:
                _reset(end)
            self._sockets.clear()

    def on_data(self, port: int, data: bytes, is_answer: bool) -> None:
        """Do nothing; a subclass may wait here, or raise OSError to break the connection off.

        Args:
            port: The port of the client's end.
            data: What came, and is passed on afterwards.
            is_answer: Whether the server sent it.
        """

    def on_end(self, port: int) -> None:
        """Do nothing; a subclass may forget the connection."""

    def _serve(self) -> None:
        while True:
            try:
                client, (_, port) = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.fault is Fault.RESET:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target, 5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            for source, sink, is_answer in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._carry, args=(port, source, sink, is_answer), daemon=True
                ).start()

    def _carry(self, port: int, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(_CHUNK):
                self.on_data(port, data, is_answer)
                if not is_answer:
                    self._hold(data.partition(b"\r\n")[0])
                if self.fault is Fault.RESET or (self.fault is Fault.SWALLOW and is_answer):
                    break
                if self.fault is not Fault.HANG:
                    sink.sendall(data)
        except OSError:
            pass
        self.on_end(port)
        for end in (source, sink):
            _reset(end)
            with self._lock:
                self._sockets.discard(end)

    def _hold(self, line: bytes) -> None:
        """Wait if the request with this first line is to be held."""
        if self.held_path is not None and self.held_path in line:
            self.held.append(line)
            while self.held_path is not None:
                time.sleep(0.01)


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv
    except OSError:
        pass
    end.close()
