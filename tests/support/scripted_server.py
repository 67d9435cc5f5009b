"""A server in place of slurmrestd that answers each request by a script, byte by byte if need be."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from app.slurm.connection import Connection
from app.slurm.tokens import TokenMint
from tests.support.real.certificates import server_context

CONNECT, READ = 0.3, 0.4  # seconds
OK = b"HTTP/1.1 200 OK\r\n"

Script = Callable[[socket.socket], None]


class Scripted:
    """A server that runs a script on each connection once a request has come, by TCP, TLS or Unix socket."""

    def __init__(self, kind: str, folder: Path, script: Script, handshakes: bool = True) -> None:
        self._script = script
        self._handshakes = handshakes
        self._context: ssl.SSLContext | None = None
        self.ca_path: Path | None = None
        self.heads: list[bytes] = []
        if kind == "unix":
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(folder / "rest.sock"))
            self._listener.listen()
            self.url = f"unix://{folder}/rest.sock"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            port = self._listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
        if kind == "tls":
            self.ca_path = folder / "ca.pem"
            self._context = server_context(self.ca_path, folder / "key.pem")
            self.url = self.url.replace("http", "https")

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def connection(self, read_timeout: float = READ) -> Connection:
        tokens = TokenMint(b"a key for the tests alone, of 32+ bytes", 300)
        return Connection(
            self.url, tokens, connect_timeout=CONNECT, read_timeout=read_timeout, ca_path=self.ca_path
        )

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=[client], daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            if not self._handshakes or self._context is None:
                self._take(plain)
                return
            with self._context.wrap_socket(plain, server_side=True) as client:
                self._take(client)

    def _take(self, client: socket.socket) -> None:
        while self._handshakes:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            self.heads.append(head)
            self._script(client)
        self._script(client)


def replying(answer: bytes) -> Script:
    return lambda client: client.sendall(answer)


def with_length(content: bytes, head: bytes = b"") -> bytes:
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(content) + content
