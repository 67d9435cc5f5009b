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
from app.senders.base import Message, unusable_server
from app.senders.deadline import Deadline
from app.senders.kept_connection import KeptConnection
from app.senders.mail import MailParams, MailSender, mail, params_of_test
from app.senders.smtp_replies import Command, is_final, is_of_the_session
from app.senders.smtp_session import SmtpSession

_DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_OK = 250


class EmailSender(MailSender):
    settings_prefix = "NOTIFICATIONS_SMTP_"

    def __init__(self, settings: Settings, server: str) -> None:
        self._settings = settings
        self._server = server
        self._port = settings.NOTIFICATIONS_SMTP_PORT or _DEFAULT_PORTS[settings.NOTIFICATIONS_SMTP_SECURITY]
        self._kept = KeptConnection(
            self._connect,
            SmtpSession.watch,
            _is_alive,
            _close,
            2 * settings.NOTIFICATIONS_SMTP_TIMEOUT_SECONDS,
        )

    def close_idle(self) -> None:
        self._kept.close_idle()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        server = settings.NOTIFICATIONS_SMTP_SERVER
        return cls(settings, server) if server else None

    def send(self, message: Message, params: MailParams) -> None:
        """Send one mail.

        Raises:
            DeliveryFailed: The mail was not sent. This is final if the cause is the message or an address.
        """
        try:
            with self._kept.connection() as smtp:
                _hand_over(smtp, mail(message, params))
        except (OSError, smtplib.SMTPException) as error:
            raise self._unusable(error) from error

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test mail; a login that is an address is its sender."""
        return params_of_test(receiver, settings, settings.NOTIFICATIONS_SMTP_USERNAME or "")

    def check_login(self) -> bool:
        """Connect, with the configured security, and log in where there is a user."""
        try:
            with self._kept.connection():
                return True
        except (OSError, smtplib.SMTPException) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DeliveryFailed:
        return unusable_server("the mail server", self._server, self._port, str(error))

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Made once: to read all authorities of the system takes longer than a mail."""
        return ssl.create_default_context(cafile=self._settings.NOTIFICATIONS_SMTP_CA_PATH)

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


def _is_alive(smtp: smtplib.SMTP) -> bool:
    """Whether the server has not closed the connection meanwhile."""
    try:
        return smtp.noop()[0] == _OK
    except (OSError, smtplib.SMTPException):
        return False


def _close(smtp: smtplib.SMTP) -> None:
    with suppress(OSError, smtplib.SMTPException):
        smtp.quit()
    smtp.close()


def _hand_over(smtp: smtplib.SMTP, message: EmailMessage) -> None:
    """Send the message over an open session."""
    try:
        smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise _refused(Command.RCPT, *next(iter(error.recipients.values()))) from error
    except smtplib.SMTPSenderRefused as error:
        raise _refused(Command.MAIL, error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPDataError as error:
        raise _refused(Command.DATA, error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        words = "the mail server does not support addresses outside ASCII (SMTPUTF8)"
        raise DeliveryFailed(words, permanent=True) from error


def _refused(command: Command, code: int, words: bytes | str) -> DeliveryFailed:
    said = words.decode(errors="replace") if isinstance(words, bytes) else words
    return DeliveryFailed(
        f"the mail server refuses it: {code} {to_one_line(said)}",
        permanent=is_final(command, code, said),
        is_of_channel=is_of_the_session(code, said),
    )
