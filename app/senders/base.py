"""The base of every channel: a model of its parameters, its settings, and a method that sends."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ValidationInfo

from app.constants import Settings
from app.errors import DeliveryFailed
from app.messages.rendering import render_event, render_html, render_parts, render_text
from app.models.content import Content


@dataclass(frozen=True, slots=True)
class Message:
    """One message by one channel. `id` is the same at every attempt, so that receivers can deduplicate."""

    id: str
    event: str
    content: Content

    @property
    def subject(self) -> str:
        """Return the subject, one line."""
        return self.content.subject

    @property
    def text(self) -> str:
        """Return the whole content as plain text."""
        return render_text(self.content)

    @property
    def parts(self) -> list[str]:
        """Return the text in parts, for a channel that shows parts one by one."""
        return render_parts(self.content)

    @property
    def html(self) -> str:
        """Return the whole content as an HTML page."""
        return render_html(self.content)

    def as_event(self) -> dict[str, Any]:
        """Return the content as a JSON object for programs."""
        return render_event(self.id, self.event, self.content)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver of a message, or of its answers. Patterns of grants are compared with the parts."""

    text: str
    parts: tuple[str, ...]


class Sender(ABC):
    """A channel. Thread-safe: several threads may send at once."""

    # The model of `task.notification.params.<method>`. Its validators get the settings in the context, so
    # that lists of allowed receivers are checked for a request, and again before a message is sent.
    Params: ClassVar[type[BaseModel]]
    # Whether people read the messages, and not programs. Those over the rate limit are sent in a digest.
    rate_limited: ClassVar[bool] = False
    settings_prefix: ClassVar[str | None] = None  # where it is not NOTIFICATIONS_<METHOD>_

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if the settings do not configure the channel."""

    @staticmethod
    @abstractmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the address that callers read in `to`; empty if the channel has only one address.

        `params` are as they were stored: `Params` might refuse them today.
        """

    @staticmethod
    @abstractmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the caller's own text, with its placeholders; empty if there is none.

        `params` are as they were stored.
        """

    @staticmethod
    def own_subject(params: Mapping[str, Any]) -> str:
        """Return the caller's own subject, with its placeholders; empty if there is none.

        `params` are as they were stored.
        """
        return str(params.get("subject") or "")

    @classmethod
    def text_params(cls) -> set[str]:
        """Return the names of the parameters that hold the caller's own subject or text."""
        found = set()
        for name in cls.Params.model_fields:
            alone = {name: name}
            if name in (cls.own_subject(alone), cls.own_text(alone)):
                found.add(name)
        return found

    @classmethod
    def address_params(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that `address` is made of."""
        return {name: value for name, value in params.items() if cls.address({name: value})}

    @classmethod
    def split_recipients(cls, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the parameters of each message by recipient, since one may fail and another not.

        A channel without lists of recipients has one message, under an empty name.
        """
        return {"": dict(params)}

    @classmethod
    def receiver_key(cls, params: Any) -> str:
        """Return the name of the receiver, for which rate limit and backoff count; `params` is a `Params`.

        It depends on the parameters alone, because grants are checked for unconfigured channels, too.
        """
        return cls.address(params.model_dump())

    @classmethod
    def receivers(cls, params: Any) -> list[Receiver]:
        """Return all receivers that a grant must cover.

        A channel with receivers of several parts overrides this method and `split_pattern`.
        """
        name = cls.receiver_key(params)
        return [Receiver(name, (name,))]

    @staticmethod
    def split_pattern(pattern: str) -> tuple[str, ...]:
        """Split the pattern of a grant, without its method, into the parts of a receiver.

        Raises:
            ValueError: The pattern fits no receiver of this channel. The message says what it must be.
        """
        return (pattern,)

    def close_idle(self) -> None:  # noqa: B027 - most channels keep no connection
        """Close idle connections, because nothing more is due for now."""

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test message to that receiver."""
        return {}

    def check_login(self) -> bool:
        """Log in, and send nothing; return False for a channel that has no login.

        Raises:
            DeliveryFailed: The service cannot be reached, or refuses the login.
        """
        return False

    @abstractmethod
    def send(self, message: Message, params: Any) -> None:
        """Send the message, and return once the receiver has confirmed. Each network step has a time-out.

        `params` is a `Params`, with one recipient.

        Raises:
            DeliveryFailed: The receiver did not accept the message.
        """


def text_param(params: Mapping[str, Any], name: str) -> str:
    """Return the text in the parameter `name`; empty if another type is there, for programs."""
    value = params.get(name)
    return value if isinstance(value, str) else ""


def split_recipient_list(params: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return the parameters once for each different recipient in the list `name`, with that recipient alone.

    If `name` holds no list of texts, the parameters are returned as they are.
    """
    recipients = params.get(name)
    if isinstance(recipients, list) and all(isinstance(item, str) for item in recipients):
        return {recipient: {**params, name: recipient} for recipient in recipients}
    return {str(recipients or ""): dict(params)}


def drop_description(schema: dict[str, Any]) -> None:
    """Remove a model's docstring from the JSON schema, which callers read."""
    schema.pop("description", None)


def settings_from_context(info: ValidationInfo) -> Settings | None:
    """Return the settings for the validation of parameters; None if only the form is validated."""
    found: Settings | None = (info.context or {}).get("settings")
    return found


def make_unusable_server_error(name: str, host: str, port: int, why: str) -> DeliveryFailed:
    """Return the error for an unusable server; callers do not see the server's address."""
    return DeliveryFailed(
        f"{name} at {host}:{port} cannot be used: {why}",
        permanent=False,
        is_of_channel=True,
        for_callers=f"{name} cannot be used: {why.replace(host, 'the server')}",
    )
