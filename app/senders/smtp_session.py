"""An SMTP session with a deadline, and with a size limit for the server's replies."""

import smtplib
import socket
import ssl
from typing import Any

from app.senders.deadline import MAX_ANSWER, Deadline


class SmtpSession(smtplib.SMTP):
    """smtplib's session on a connection that a deadline watches."""

    def __init__(
        self, host: str, port: int, *, timeout: float, deadline: Deadline, tls: ssl.SSLContext | None
    ) -> None:
        """Connect, with TLS from the beginning if `tls` is given.

        Raises:
            OSError: The server cannot be reached.
            SMTPException: The server refuses the session in its greeting.
        """
        self._deadline = deadline
        self._tls = tls
        self.bytes_left = MAX_ANSWER
        super().__init__(host, port, timeout=timeout)

    def watch(self, deadline: Deadline) -> None:
        """Apply the deadline and a new size limit to the session, for another message."""
        self.bytes_left = MAX_ANSWER
        if self.sock is not None:
            deadline.watch(self.sock)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the connection. smtplib lets subclasses override the method for that."""
        plain = self._deadline.connect(host, port, timeout)
        return self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply, which may have any number of lines."""
        if self.file is None and self.sock is not None:
            self.file = _LimitedFile(self.sock.makefile("rb"), self)
        return super().getreply()


class _LimitedFile:
    """The file from which smtplib reads replies, up to the size limit of its session."""

    def __init__(self, file: Any, session: SmtpSession) -> None:
        self._file = file
        self._session = session

    def readline(self, limit: int) -> bytes:
        """Read one line.

        Raises:
            OSError: The server has sent more than the size limit.
        """
        line: bytes = self._file.readline(limit)
        self._session.bytes_left -= len(line)
        if self._session.bytes_left < 0:
            raise OSError(f"it answers with more than {MAX_ANSWER} bytes")
        return line

    def close(self) -> None:
        """Close the file."""
        self._file.close()
