"""The method `email`: SMTP with STARTTLS, TLS or neither."""

import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, ClassVar, Self

from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.record import utc_now
from app.models.rules import Line, ShellText, must
from app.senders.base import Message

SPECIAL_USE_DOMAIN_NAMES.clear()  # the library's own switch: clusters do have mail domains such as .local
_DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def _parsed(value: str) -> Address:
    """One address with or without a display name, of any domain, local ones too; ValueError if it is none."""
    found = validate_email(
        value, check_deliverability=False, allow_display_name=True, globally_deliverable=False
    )
    return Address(found.display_name or "", found.local_part, found.ascii_domain or found.domain)


def _address(value: str) -> str:
    _parsed(value)
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


MailAddress = Annotated[Line, AfterValidator(_address), must("be an e-mail address")]


class EmailParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sender: MailAddress
    recipient: Annotated[
        list[MailAddress],
        Field(min_length=1, max_length=100),
        BeforeValidator(_as_list),
        must("be an e-mail address or a list of at most 100"),
    ]
    subject: Line | None = None
    body: ShellText | None = None


class EmailSender:
    Params: ClassVar[type[BaseModel]] = EmailParams

    def __init__(self, settings: Settings, server: str) -> None:
        self._settings = settings
        self._server = server
        self._port = settings.NOTIFICATIONS_SMTP_PORT or _DEFAULT_PORTS[settings.NOTIFICATIONS_SMTP_SECURITY]

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        server = settings.NOTIFICATIONS_SMTP_SERVER
        return cls(settings, server) if server else None

    def send(self, message: Message) -> None:
        """Permanent: what the server says with 5xx of the addresses or the message itself."""
        mail = _mail(message, EmailParams.model_validate(message.params))
        try:
            with self._connect() as smtp:
                smtp.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(*next(iter(error.recipients.values()))) from error
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            raise _refused(error.smtp_code, error.smtp_error) from error
        except (OSError, smtplib.SMTPException) as error:
            words = f"the mail server {self._server}:{self._port} cannot be used: {error}"
            raise DeliveryFailed(words, permanent=False) from error

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        timeout = settings.NOTIFICATIONS_SMTP_TIMEOUT_SECONDS
        trust = ssl.create_default_context(cafile=settings.NOTIFICATIONS_SMTP_CA_PATH)
        if settings.NOTIFICATIONS_SMTP_SECURITY == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(self._server, self._port, timeout=timeout, context=trust)
        else:
            smtp = smtplib.SMTP(self._server, self._port, timeout=timeout)
        try:
            if settings.NOTIFICATIONS_SMTP_SECURITY == "starttls":
                smtp.starttls(context=trust)
            password = settings.NOTIFICATIONS_SMTP_PASSWORD
            if settings.NOTIFICATIONS_SMTP_USERNAME:
                smtp.login(
                    settings.NOTIFICATIONS_SMTP_USERNAME, password.get_secret_value() if password else ""
                )
        except BaseException:
            smtp.close()
            raise
        return smtp


def _mail(message: Message, params: EmailParams) -> EmailMessage:
    mail = EmailMessage()
    sender = _parsed(params.sender)
    mail["From"] = sender
    mail["To"] = [_parsed(recipient) for recipient in params.recipient]
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(utc_now())
    mail["Message-ID"] = f"<{message.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


def _refused(code: int, words: bytes | str) -> DeliveryFailed:
    said = words.decode(errors="replace") if isinstance(words, bytes) else words
    return DeliveryFailed(f"the mail server refuses it: {code} {said}", permanent=code >= 500)
