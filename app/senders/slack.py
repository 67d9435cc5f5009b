"""The method `slack`: chat.postMessage, with callers' text in blocks without markup."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from slack_sdk.errors import SlackApiError, SlackClientError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.messages.placeholders import to_one_line
from app.models.rules import Line, ShellText
from app.senders.base import (
    Message,
    Sender,
    drop_description,
    settings_from_context,
    text_param,
)
from app.senders.http import parse_retry_after
from app.senders.slack_client import SlackClient

_MAX_SECTION_LENGTH = 3000  # characters, Slack's own limit
# Errors of which Slack, and not the message, is the cause: https://docs.slack.dev/reference/methods/chat.postMessage
_TEMPORARY_ERRORS = {
    "accesslimited",
    "fatal_error",
    "internal_error",
    "message_limit_exceeded",
    "rate_limited",
    "ratelimited",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
}
# Errors that lie in the operator's app and not in the message; the operator can correct them.
_APP_ERRORS = {
    "access_denied",
    "account_inactive",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_auth",
    "missing_scope",
    "no_permission",
    "not_allowed_token_type",
    "not_authed",
    "org_login_required",
    "team_access_not_granted",
    "token_expired",
    "token_revoked",
}


def _channel_or_default(channel: str | None, info: ValidationInfo) -> str | None:
    settings = settings_from_context(info)
    return channel or (settings.NOTIFICATIONS_SLACK_CHANNEL if settings else None)


class SlackParams(BaseModel):
    """The parameters: channel, message and subject."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=drop_description)

    channel: Annotated[Line | None, AfterValidator(_channel_or_default)] = Field(None, validate_default=True)
    msg: ShellText | None = None
    subject: Line | None = None


class SlackSender(Sender):
    """A channel to the Slack workspace of one app."""

    Params: ClassVar[type[SlackParams]] = SlackParams
    rate_limited = True

    def __init__(self, settings: Settings, token: str) -> None:
        """Create the channel; nothing connects yet."""
        self._client = SlackClient(
            token,
            settings.NOTIFICATIONS_SLACK_API_URL.rstrip("/") + "/",
            settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS,
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no token is set."""
        token = settings.NOTIFICATIONS_SLACK_BOT_TOKEN
        return cls(settings, token.get_secret_value()) if token else None

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the Slack channel that the caller names."""
        return str(params.get("channel") or "")

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the parameter `msg`."""
        return text_param(params, "msg")

    def send(self, message: Message, params: SlackParams) -> None:
        """Post one message.

        Raises:
            DeliveryFailed: Slack did not accept the message. This is final if the message or the channel is
                the cause, and not Slack or the app.
        """
        if not (channel := self.receiver_key(params)):
            raise DeliveryFailed("no channel is named, and the server has no default", permanent=True)
        metadata = {"event_type": "slurm_job", "event_payload": {"id": message.id, "event": message.event}}
        try:
            self._client.chat_postMessage(
                channel=channel,
                text=_escape_markup(message.subject),
                blocks=_build_blocks(message),
                metadata=metadata,
            )
        except SlackApiError as error:
            raise _slack_refusal(error, f"the message to {channel}") from error
        except (SlackClientError, OSError) as error:
            raise _slack_unreachable(error) from error

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test message to a channel."""
        return {"channel": receiver}

    def check_login(self) -> bool:
        """Ask Slack whether the token is valid.

        Raises:
            DeliveryFailed: Slack cannot be reached, or refuses the token.
        """
        try:
            self._client.api_call("auth.test", json={})
        except SlackApiError as error:
            raise _slack_refusal(error, "the token") from error
        except (SlackClientError, OSError) as error:
            raise _slack_unreachable(error) from error
        return True


def _build_blocks(message: Message) -> list[dict[str, Any]]:
    """Return blocks of plain text, in which `<!channel>`, links and mentions have no effect."""
    return [
        {"type": "section", "text": {"type": "plain_text", "text": _truncate(text), "emoji": False}}
        for text in (message.subject, *message.parts)
        if text
    ]


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_SECTION_LENGTH else text[: _MAX_SECTION_LENGTH - 1] + "…"


def _escape_markup(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_unreachable(error: Exception) -> DeliveryFailed:
    words = f"Slack cannot be reached: {to_one_line(str(error))}"
    return DeliveryFailed(words, permanent=False, is_of_channel=True)


def _slack_refusal(error: SlackApiError, refused: str) -> DeliveryFailed:
    response: Any = error.response
    status = response.status_code
    word = response.get("error") if isinstance(response.data, dict) else None
    if not re.fullmatch(r"\w+", str(word)):  # not Slack's, but the answer of a server in between
        word = None
    is_temporary = (
        status == 429 or status >= 500 or word in _TEMPORARY_ERRORS or word in _APP_ERRORS or word is None
    )
    return DeliveryFailed(
        f"Slack refuses {refused}: {word or f'status {status}'}",
        permanent=not is_temporary,
        retry_after=parse_retry_after(response.headers.get("Retry-After")),
        is_of_channel=word in _APP_ERRORS,
    )
