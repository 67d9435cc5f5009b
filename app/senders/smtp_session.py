"""An SMTP session that ends in time, and whose server can only say so much."""

import smtplib
import socket
import ssl
from typing import Any

from app.senders.deadline import MAX_ANSWER, Deadline


class SmtpSession(smtplib.SMTP):
    """The library's session on a connection that a deadline watches."""

    def __init__(
        self, host: str, port: int, *, timeout: float, deadline: Deadline, tls: ssl.SSLContext | None
    ) -> None:
        """Connect, with TLS from the beginning where there is `tls`.

        Raises:
            OSError: There is no connection, or the server greets with a refusal.
        """
        self._deadline = deadline
        self._tls = tls
        self.left = MAX_ANSWER
        super().__init__(host, port, timeout=timeout)

    def watch(self, deadline: Deadline) -> None:
        """Count time and size anew, for another message."""
        self.left = MAX_ANSWER
        if self.sock is not None:
            deadline.watch(self.sock)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the connection: the library's own seam."""
        plain = self._deadline.connect(host, port, timeout)
        return self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply, which may have any number of lines."""
        if self.file is None and self.sock is not None:
            self.file = _Limited(self.sock.makefile("rb"), self)
        return super().getreply()


class _Limited:
    """What the library reads replies from, until the session may read no more."""

    def __init__(self, file: Any, session: SmtpSession) -> None:
        self._file = file
        self._session = session

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        self._session.left -= len(line)
        if self._session.left < 0:
            raise OSError(f"it answers with more than {MAX_ANSWER} bytes")
        return line

    def close(self) -> None:
        self._file.close()
