"""A real SMTP server on loopback: STARTTLS, TLS or neither, with or without a login."""

from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.support.real.certificates import server_context
from tests.support.real.processes import free_port


@dataclass(frozen=True)
class Mail:
    """One message as the server took it."""

    sender: str
    recipients: list[str]
    message: EmailMessage

    def text(self) -> str:
        """The plain text, beside which the same stands as HTML."""
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())


class SmtpServer:
    """Enter it to serve on `host` and `port`, as often as you like; `mails` holds what came."""

    def __init__(self, folder: Path, security: str = "none", login: tuple[str, str] | None = None) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.mails: list[Mail] = []
        self.answers: dict[str, str] = {}  # what to say to RCPT TO of an address, instead of taking it
        self.logins: list[str] = []
        self.ca_path = folder / "smtp-ca.pem"
        self._security = security
        self._login = login
        self._context = server_context(self.ca_path, folder / "smtp-key.pem")
        self._controller: Controller | None = None

    def __enter__(self) -> Self:
        options: dict[str, Any] = {}
        if self._security == "starttls":
            options = {"tls_context": self._context, "require_starttls": True}
        elif self._security == "tls":
            options = {"ssl_context": self._context}
        if self._login:
            options |= {"authenticator": self._authenticate, "auth_required": True}
            options["auth_require_tls"] = self._security == "starttls"
        self._controller = Controller(self, hostname=self.host, port=self.port, **options)
        self._controller.start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._controller is not None
        self._controller.stop()

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)
        self.mails.append(Mail(envelope.mail_from, list(envelope.rcpt_tos), message))
        return "250 taken"

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else None
        self.logins.append(given[0] if given else "")
        return AuthResult(success=given == self._login, handled=False)
