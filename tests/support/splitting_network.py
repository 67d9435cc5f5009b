"""A network that splits requests: a server behind it gets them in parts."""

import socket
import threading
import time
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

PACKET = 1448  # bytes; of Ethernet
_PAUSE = 0.005  # seconds between two packets


class SplittingNetwork:
    """Passes each request on packet by packet, and the answers as they come; enter it to have `url`."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = target.hostname or "", target.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target in ((caller, server), (server, caller)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(PACKET):
            target.sendall(data)
            time.sleep(_PAUSE)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
