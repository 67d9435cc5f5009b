"""The common part of `email` and `gmail`: the parameters, and the message in the form of RFC 5322."""

from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.record import utc_now
from app.models.rules import Line, Rule, ShellText
from app.senders.base import (
    Message,
    Receiver,
    Sender,
    drop_description,
    settings_from_context,
    split_recipient_list,
    text_param,
)
from app.senders.mail_addresses import MailAddress, is_listed, parse_address, to_header_text


def _to_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _require_allowed_recipients(values: list[str], info: ValidationInfo) -> list[str]:
    """Require that the operator lets every recipient get mail."""
    settings = settings_from_context(info)
    for address in map(parse_address, values):
        if settings and not is_listed(address, settings.NOTIFICATIONS_MAIL_ALLOWED):
            words = {"address": address.addr_spec}
            raise PydanticCustomError("rule", "this server sends no mail to {address}", words)
    return values


def _require_allowed_sender(value: str, info: ValidationInfo) -> str:
    """Require that the operator lets the address send mail.

    With delegation, Google lets a service account send as any user of the operator's domain.
    """
    settings, address = settings_from_context(info), parse_address(value)
    if settings and not is_listed(address, settings.NOTIFICATIONS_MAIL_SENDERS):
        words = {"address": address.addr_spec}
        raise PydanticCustomError("rule", "this server sends no mail as {address}", words)
    return value


def _require_allowed_reply_to(value: str, info: ValidationInfo) -> str:
    """Require that an address for answers is one that the operator lets receive or send mail."""
    settings, address = settings_from_context(info), parse_address(value)
    if settings and not is_listed(address, settings.NOTIFICATIONS_MAIL_ALLOWED):
        senders = settings.NOTIFICATIONS_MAIL_SENDERS
        if not senders or not is_listed(address, senders):
            words = {"address": address.addr_spec}
            raise PydanticCustomError("rule", "this server does not allow answers to {address}", words)
    return value


class MailParams(BaseModel):
    """The parameters: sender, recipients, address for answers, subject and body."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=drop_description)

    sender: Annotated[MailAddress, AfterValidator(_require_allowed_sender)]
    recipient: Annotated[
        Annotated[
            list[MailAddress],
            Field(min_length=1, max_length=100),
            BeforeValidator(
                _to_list,
                json_schema_input_type=MailAddress
                | Annotated[list[MailAddress], Field(min_length=1, max_length=100)],
            ),
            Rule("be an e-mail address or a list of at most 100"),
        ],
        AfterValidator(_require_allowed_recipients),
    ]
    reply_to: Annotated[MailAddress, AfterValidator(_require_allowed_reply_to)] | None = None
    subject: Line | None = None
    body: ShellText | None = None


class MailSender(Sender):
    """A channel that sends mail."""

    Params: ClassVar[type[MailParams]] = MailParams
    rate_limited = True

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the recipient."""
        return str(params.get("recipient") or "")

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the body."""
        return text_param(params, "body")

    @classmethod
    def split_recipients(cls, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the parameters for each recipient of the list."""
        return split_recipient_list(params, "recipient")

    @classmethod
    def receiver_key(cls, params: MailParams) -> str:
        """Return the recipient's address in lower case, without the display name."""
        return parse_address(params.recipient[0]).addr_spec.lower()

    @classmethod
    def receivers(cls, params: MailParams) -> list[Receiver]:
        """Return the recipients, and the address to which answers go."""
        addresses = (*params.recipient, *([params.reply_to] if params.reply_to else ()))
        names = [parse_address(address).addr_spec.lower() for address in addresses]
        return [Receiver(name, tuple(name.rsplit("@", 1))) for name in names]

    @staticmethod
    def split_pattern(pattern: str) -> tuple[str, ...]:
        """Return the parts before and after the @.

        Raises:
            ValueError: The pattern has no @.
        """
        parts = tuple(pattern.lower().rsplit("@", 1))
        if len(parts) != 2:
            raise ValueError("must be an address with an @, such as *@example.com")
        return parts


def build_test_params(receiver: str, settings: Settings, account: str) -> dict[str, Any]:
    """Return the parameters of a test mail.

    Its sender is the first address that may send, else the account if that is one, else the receiver.
    """
    senders = (*settings.NOTIFICATIONS_MAIL_SENDERS, account)
    sender = next((address for address in senders if "@" in address), receiver)
    return {"sender": sender, "recipient": [receiver]}


def build_mail(message: Message, params: MailParams) -> EmailMessage:
    """Return the mail, in plain text and HTML, which vacation programs do not answer (RFC 3834)."""
    built, sender = EmailMessage(), parse_address(params.sender)
    built["From"] = sender
    built["To"] = [parse_address(recipient) for recipient in params.recipient]
    if params.reply_to is not None:
        built["Reply-To"] = parse_address(params.reply_to)
    built["Subject"] = to_header_text(message.subject)
    built["Date"] = format_datetime(utc_now())
    built["Message-ID"] = f"<{message.id}@{sender.domain}>"
    built["Auto-Submitted"] = "auto-generated"
    built.set_content(message.text)
    built.add_alternative(message.html, subtype="html")
    _require_given_addresses(built, params)
    return built


def _require_given_addresses(built: EmailMessage, params: MailParams) -> None:
    """Require that the headers of the mail, read again, have the given addresses and no others.

    Raises:
        DeliveryFailed: A header has other addresses.
    """
    read = message_from_bytes(built.as_bytes(policy=policy.SMTP), policy=policy.default)
    headers = {"From": [params.sender], "To": params.recipient}
    if params.reply_to is not None:
        headers["Reply-To"] = [params.reply_to]
    for header, given in headers.items():
        found = [address.addr_spec for address in read[header].addresses]
        if (
            found != [parse_address(address).addr_spec for address in given]
            or len(read.get_all(header, [])) != 1
        ):
            raise DeliveryFailed(f"the addresses of {header} cannot be written safely", permanent=True)
