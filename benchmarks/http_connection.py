"""Two HTTP clients: one with little overhead, and the library that most callers use."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The status, the headers (names in lower case) and the body of an answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.content)


class HttpConnection:
    """One connection to a server, which is kept between requests. For one thread."""

    def __init__(self, url: str, timeout: float = _TIMEOUT) -> None:
        """Name the server; the connection is opened for the first request."""
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def __del__(self) -> None:
        self.close()

    def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: object = None
    ) -> HttpAnswer:
        """Send a request, with `body` as JSON, and return the answer.

        Raises:
            OSError: The server cannot be reached, or does not answer in time.
        """
        return self.send(encode_request(method, target, headers or {}, body))

    def send(self, request: bytes) -> HttpAnswer:
        """Send an encoded request; open the connection again if the server has closed an idle one.

        Raises:
            OSError: The server cannot be reached, or does not answer in time.
        """
        if self._socket is not None:
            try:
                return self._exchange(self._socket, request)
            except ConnectionError:
                self.close()
        self._socket = socket.create_connection(self._address, self._timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._exchange(self._socket, request)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, connection: socket.socket, request: bytes) -> HttpAnswer:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += _receive(connection)
        head, _, content = data.partition(b"\r\n\r\n")
        status, headers = decode_head(head)
        length = int(headers.get("content-length", 0))
        parts, missing = [content], length - len(content)
        while missing > 0:
            parts.append(_receive(connection))
            missing -= len(parts[-1])
        if headers.get("connection", "").lower() == "close":
            self.close()
        return HttpAnswer(status, headers, b"".join(parts))


class LibraryConnection(HttpConnection):
    """Connection of the library `requests`, which needs about a millisecond for each request itself."""

    def __init__(self, url: str) -> None:
        """Name the server; the connection is opened for the first request."""
        super().__init__(url)
        self._url = url
        self._session = requests.Session()

    def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: object = None
    ) -> HttpAnswer:
        """Send a request, with `body` as JSON, and return the answer."""
        answer = self._session.request(
            method, self._url + target, headers=headers, json=body, timeout=_TIMEOUT
        )
        named = {name.lower(): value for name, value in answer.headers.items()}
        return HttpAnswer(answer.status_code, named, answer.content)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._session.close()


def encode_request(method: str, target: str, headers: Mapping[str, str], body: object = None) -> bytes:
    """Return a request as it is sent, with `body` as JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {headers[name]}" for name in headers),
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def decode_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers (names in lower case) of the first part of an answer."""
    first, *lines = head.decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named}


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(262144)
    if not data:
        raise ConnectionResetError("the server has closed the connection")
    return data
