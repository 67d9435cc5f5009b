"""Sockets that keep one deadline and one size limit for a whole request and its answer.

urllib3 applies its time-out to each single read, so that an answer that comes byte by byte never ends. It
also reads lines of any length. Here everything that a thread sends and receives counts towards the limits of
its request: status line, `100 Continue`, headers, chunk sizes and body, with TLS and Unix sockets as well.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context


class AnswerTooLarge(OSError):
    """Error: more bytes came than the request allows for."""


class Allowance:
    """Time, and bytes of the answer, that are left for one request."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        """Begin the time of a request now."""
        self._ends = time.monotonic() + seconds
        self._bytes_left = max_bytes
        self.has_sent = False  # whether any byte of the request went out
        self.is_aborted = False  # whether the request was ended from outside
        self._socket: socket.socket | None = None

    def seconds_left(self) -> float:
        """Return the time until the deadline.

        Raises:
            TimeoutError: The deadline has passed.
        """
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request was not answered in time")
        return left

    def apply_to(self, sock: "_TimedSocket | _TimedTlsSocket") -> None:
        """Make the next read or write of a socket end at the deadline.

        Raises:
            TimeoutError: The deadline has passed.
        """
        sock.settimeout(self.seconds_left())
        self._socket, sock.allowance = sock, self

    def abort(self) -> None:
        """End the request at once, from another thread."""
        self.is_aborted = True
        sock = self._socket
        if isinstance(sock, _TimedSocket | _TimedTlsSocket) and sock.allowance is self:
            with suppress(OSError):  # it may be closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # without the closing message of TLS

    def count(self, received: int) -> None:
        """Count received bytes.

        Raises:
            AnswerTooLarge: More bytes came than the request allows for.
        """
        self._bytes_left -= received
        if self._bytes_left < 0:
            raise AnswerTooLarge("the answer is larger than allowed")


class _Current(threading.local):
    """Holder of the allowance of the request that this thread makes."""

    allowance: Allowance | None = None


_current = _Current()


@contextmanager
def limited(seconds: float, max_bytes: int) -> Iterator[Allowance]:
    """Limit the time and the bytes that this thread sends and receives through the sockets of this module."""
    allowance = _current.allowance = Allowance(seconds, max_bytes)
    try:
        yield allowance
    finally:
        _current.allowance = None


class _TimedSocket(socket.socket):
    """Socket whose reads and writes end at the deadline of the thread's request."""

    allowance: Allowance | None = None  # of the request that used the socket last

    def recv_into(self, *args: Any) -> int:
        _apply_deadline(self)
        return _counted(super().recv_into(*args))

    def sendall(self, *args: Any) -> None:
        _apply_deadline(self, sends=True)
        super().sendall(*args)


class _TimedTlsSocket(ssl.SSLSocket):
    """TLS socket with the same deadline; its handshake has the time that is left to connect."""

    allowance: Allowance | None = None

    def recv_into(self, *args: Any) -> int:
        _apply_deadline(self)
        return _counted(super().recv_into(*args))

    def send(self, *args: Any) -> int:  # sendall calls it, as often as it takes
        _apply_deadline(self, sends=True)
        return super().send(*args)


def _apply_deadline(sock: _TimedSocket | _TimedTlsSocket, *, sends: bool = False) -> None:
    if (allowance := _current.allowance) is not None:
        allowance.apply_to(sock)
        allowance.has_sent = allowance.has_sent or sends


def _counted(received: int) -> int:
    if (allowance := _current.allowance) is not None:
        allowance.count(received)
    return received


class _TimedConnection(HTTPConnection):
    """Connection that is made within `timeout` in all, however many addresses the host has."""

    def __init__(self, *arguments: Any, unix_path: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unix_path = unix_path

    def _new_conn(self) -> socket.socket:
        try:
            return _connect_to_first(self._addresses(), float(self.timeout or 0))
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: the host's name is not valid
            raise NewConnectionError(self, f"no connection: {error}") from error

    def _addresses(self) -> list[tuple[Any, ...]]:
        if self._unix_path is not None:
            return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", self._unix_path)]
        return list(socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM))


class _TimedTlsConnection(_TimedConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TimedTlsConnection


def _connect_to_first(addresses: list[tuple[Any, ...]], seconds: float) -> _TimedSocket:
    """Connect to the first address that accepts; the time that is left becomes the socket's time-out.

    Raises:
        OSError: No address accepts the connection in time.
    """
    allowance = Allowance(seconds, 0)
    fault: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in addresses:
        sock = _TimedSocket(family, kind, protocol)
        try:
            sock.settimeout(allowance.seconds_left())
            sock.connect(address)
            sock.settimeout(allowance.seconds_left())
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            fault = error
        else:
            return sock
    raise fault


def make_pool(host: str, ca_path: Path | None, connections: int) -> HTTPConnectionPool:
    """Return a pool with the connections of this module, which is empty at first.

    Args:
        host: An address with http://, https:// or unix://.
        ca_path: The certificates of the authorities to trust, in a file or a folder; None for those of the
            package certifi, whatever the environment says.
        connections: How many connections are kept.

    Raises:
        ValueError: The address is not valid.
    """
    if host.startswith("unix://"):
        return _Pool("localhost", maxsize=connections, unix_path=host.removeprefix("unix://"))
    parts = urlsplit(host)
    if parts.scheme == "http":
        return _Pool(parts.hostname or "", parts.port, maxsize=connections)
    trusted = ca_path or Path(certifi.where())
    is_folder = trusted.is_dir()
    return _TlsPool(
        parts.hostname or "",
        parts.port,
        maxsize=connections,
        ssl_context=_make_tls_context(),
        cert_reqs="CERT_REQUIRED",
        ca_certs=None if is_folder else str(trusted),
        ca_cert_dir=str(trusted) if is_folder else None,
    )


def _make_tls_context() -> ssl.SSLContext:
    """Return a context that verifies certificates, and whose sockets are those of this module."""
    context = create_urllib3_context()
    context.sslsocket_class = _TimedTlsSocket
    return context
