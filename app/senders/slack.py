"""The method `slack`: chat.postMessage, with the user's words where no markup can hide in them."""

import re
from typing import Annotated, Any, ClassVar, Self
from urllib.error import URLError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.rules import Line, ShellText
from app.senders.base import Message, Sender, seconds_of, settings_of

_LONGEST_SECTION = 3000  # characters, Slack's own limit
# What Slack says when it, and not the message, has a problem: https://docs.slack.dev/reference/methods/chat.postMessage
_PASSING = {
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


def _or_default(channel: str | None, info: ValidationInfo) -> str | None:
    settings = settings_of(info)
    return channel or (settings.NOTIFICATIONS_SLACK_CHANNEL if settings else None)


class SlackParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    channel: Annotated[Line | None, AfterValidator(_or_default)] = Field(None, validate_default=True)
    msg: ShellText | None = None
    subject: Line | None = None


class SlackSender(Sender):
    Params: ClassVar[type[SlackParams]] = SlackParams
    for_people = True

    def __init__(self, settings: Settings, token: str) -> None:
        self._client = WebClient(
            token,
            base_url=settings.NOTIFICATIONS_SLACK_API_URL.rstrip("/") + "/",
            timeout=int(settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS) or 1,
            retry_handlers=[],  # the outbox tries again; a handler of theirs could send twice
        )

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        token = settings.NOTIFICATIONS_SLACK_BOT_TOKEN
        return cls(settings, token.get_secret_value()) if token else None

    @staticmethod
    def receiver(params: SlackParams) -> str:
        return params.channel or ""

    def send(self, message: Message, params: SlackParams) -> None:
        if not (channel := self.receiver(params)):
            raise DeliveryFailed("no channel is named, and the server has no default", permanent=True)
        metadata = {"event_type": "slurm_job", "event_payload": {"id": message.id, "event": message.event}}
        try:
            self._client.chat_postMessage(
                channel=channel, text=_escaped(message.subject), blocks=_blocks(message), metadata=metadata
            )
        except SlackApiError as error:
            raise _said(error, channel) from error
        except (SlackClientError, OSError) as error:
            why = error.reason if isinstance(error, URLError) else error
            raise DeliveryFailed(f"Slack cannot be reached: {why}", permanent=False) from error


def _blocks(message: Message) -> list[dict[str, Any]]:
    """Plain text: `<!channel>`, links and mentions of a caller's stay what they are, words."""
    return [
        {"type": "section", "text": {"type": "plain_text", "text": _cut(text), "emoji": False}}
        for text in (message.subject, *message.parts)
        if text
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SECTION else text[: _LONGEST_SECTION - 1] + "…"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _said(error: SlackApiError, channel: str) -> DeliveryFailed:
    response: Any = error.response
    status = response.status_code
    said = response.get("error") if isinstance(response.data, dict) else None
    if not re.fullmatch(r"\w+", str(said)):  # no word of Slack's, but of something in between
        said = None
    is_passing = status == 429 or status >= 500 or said in _PASSING or said is None
    return DeliveryFailed(
        f"Slack refuses the message to {channel}: {said or f'status {status}'}",
        permanent=not is_passing,
        retry_after=seconds_of(response.headers.get("Retry-After")),
    )
