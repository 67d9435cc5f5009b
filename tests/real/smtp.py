"""A real SMTP server on loopback: STARTTLS, TLS or neither, with or without a login."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.real.processes import free_port


@dataclass(frozen=True)
class Mail:
    """One message as the server took it."""

    sender: str
    recipients: list[str]
    message: EmailMessage


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
        self._context = _context(self.ca_path, folder / "smtp-key.pem")
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
        message = cast(
            "EmailMessage",
            message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default),
        )
        self.mails.append(Mail(envelope.mail_from, list(envelope.rcpt_tos), message))
        return "250 taken"

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else None
        self.logins.append(given[0] if given else "")
        return AuthResult(success=given == self._login, handled=False)


def _context(certificate_path: Path, key_path: Path) -> ssl.SSLContext:
    """A server's context with a certificate for loopback, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_path, key_path)
    return context
