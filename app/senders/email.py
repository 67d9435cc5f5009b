"""The method `email`: SMTP with STARTTLS, TLS or neither."""

import smtplib
import ssl
from contextlib import suppress
from email.message import EmailMessage
from functools import cached_property
from typing import Any, Self

from app.constants import Settings
from app.errors import DeliveryFailed
from app.messages.placeholders import to_one_line
from app.senders.authorities import read_authorities
from app.senders.base import Message, make_unusable_server_error
from app.senders.deadline import Deadline
from app.senders.kept_connection import KeptConnection
from app.senders.mail import MailParams, MailSender, build_mail, build_test_params
from app.senders.smtp_replies import Command, is_final, refuses_session
from app.senders.smtp_session import SmtpSession

_DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_OK = 250


class EmailSender(MailSender):
    """A channel to one mail server."""

    settings_prefix = "NOTIFICATIONS_SMTP_"

    def __init__(self, settings: Settings, server: str) -> None:
        """Create the channel; nothing connects yet."""
        self._settings = settings
        self._server = server
        self._port = settings.NOTIFICATIONS_SMTP_PORT or _DEFAULT_PORTS[settings.NOTIFICATIONS_SMTP_SECURITY]
        self._kept = KeptConnection(
            self._connect,
            SmtpSession.watch,
            _is_smtp_alive,
            _close_smtp,
            2 * settings.NOTIFICATIONS_SMTP_TIMEOUT_SECONDS,
        )

    def close_idle(self) -> None:
        """Close the idle connection to the mail server."""
        self._kept.close_idle()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no mail server is set.

        Raises:
            SettingsError: The file of the certificate authority cannot be used.
        """
        server = settings.NOTIFICATIONS_SMTP_SERVER
        if not server:
            return None
        sender = cls(settings, server)
        if settings.NOTIFICATIONS_SMTP_SECURITY != "none" and settings.NOTIFICATIONS_SMTP_CA_PATH is not None:
            sender._trust  # noqa: B018 - reads the file now
        return sender

    def send(self, message: Message, params: MailParams) -> None:
        """Send one mail.

        Raises:
            DeliveryFailed: The mail was not sent. This is final if the cause is the message or an address.
        """
        try:
            with self._kept.connection() as smtp:
                _transmit(smtp, build_mail(message, params))
        except (OSError, smtplib.SMTPException) as error:
            raise self._unusable(error) from error

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test mail. Its sender is the login, if that is an address."""
        return build_test_params(receiver, settings, settings.NOTIFICATIONS_SMTP_USERNAME or "")

    def check_login(self) -> bool:
        """Connect, with the configured security, and log in if a user is set.

        Raises:
            DeliveryFailed: The mail server cannot be reached, or refuses the login.
        """
        try:
            with self._kept.connection():
                return True
        except (OSError, smtplib.SMTPException) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DeliveryFailed:
        return make_unusable_server_error("the mail server", self._server, self._port, str(error))

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Return the trusted certificate authorities, read once."""
        return read_authorities("NOTIFICATIONS_SMTP_CA_PATH", self._settings.NOTIFICATIONS_SMTP_CA_PATH)

    def _connect(self, deadline: Deadline) -> SmtpSession:
        settings = self._settings
        smtp = SmtpSession(
            self._server,
            self._port,
            timeout=settings.NOTIFICATIONS_SMTP_TIMEOUT_SECONDS,
            deadline=deadline,
            tls=self._trust if settings.NOTIFICATIONS_SMTP_SECURITY == "tls" else None,
        )
        try:
            if settings.NOTIFICATIONS_SMTP_SECURITY == "starttls":
                smtp.starttls(context=self._trust)
            password = settings.NOTIFICATIONS_SMTP_PASSWORD
            if settings.NOTIFICATIONS_SMTP_USERNAME:
                smtp.login(
                    settings.NOTIFICATIONS_SMTP_USERNAME, password.get_secret_value() if password else ""
                )
        except BaseException:
            smtp.close()
            raise
        return smtp


def _is_smtp_alive(smtp: smtplib.SMTP) -> bool:
    """Return whether the server has not closed the connection meanwhile."""
    try:
        return smtp.noop()[0] == _OK
    except (OSError, smtplib.SMTPException):
        return False


def _close_smtp(smtp: smtplib.SMTP) -> None:
    with suppress(OSError, smtplib.SMTPException):
        smtp.quit()
    smtp.close()


def _transmit(smtp: smtplib.SMTP, message: EmailMessage) -> None:
    """Send the message over an open session."""
    try:
        smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise _smtp_refusal(Command.RCPT, *next(iter(error.recipients.values()))) from error
    except smtplib.SMTPSenderRefused as error:
        raise _smtp_refusal(Command.MAIL, error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPDataError as error:
        raise _smtp_refusal(Command.DATA, error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        words = "the mail server does not support addresses outside ASCII (SMTPUTF8)"
        raise DeliveryFailed(words, permanent=True) from error


def _smtp_refusal(command: Command, code: int, words: bytes | str) -> DeliveryFailed:
    said = words.decode(errors="replace") if isinstance(words, bytes) else words
    return DeliveryFailed(
        f"the mail server refuses the message: {code} {to_one_line(said)}",
        permanent=is_final(command, code, said),
        is_of_channel=refuses_session(code, said),
    )
