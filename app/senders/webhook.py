"""The method `webhook`: POSTs the event as JSON, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import time
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

import requests
from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.rules import Line, must
from app.senders.base import Message, Sender, seconds_of, settings_of

_PASSING = (408, 409, 425, 429)  # beside 5xx


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise ValueError("not a plain URL")
    return value


def _receiver(url: str) -> str:
    """The host, with the port that the URL names."""
    return urlsplit(url).netloc.lower()


def _allowed(url: str, info: ValidationInfo) -> str:
    settings = settings_of(info)
    if settings is not None and _receiver(url) not in settings.webhook_secrets():
        words = "must be at a host that this server's operator has listed"
        raise PydanticCustomError("rule", "{words}", {"words": words})
    return url


class WebhookParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Annotated[
        Annotated[Line, AfterValidator(_url), must("be an http or https URL without a user in it")],
        AfterValidator(_allowed),
    ]
    subject: Line | None = None
    body: JsonValue = None


class WebhookSender(Sender):
    Params: ClassVar[type[WebhookParams]] = WebhookParams

    def __init__(self, settings: Settings) -> None:
        self._secrets = settings.webhook_secrets()
        self._timeout = settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        return cls(settings) if settings.webhook_secrets() else None

    def receiver(self, params: WebhookParams) -> str:
        return _receiver(params.url)

    def send(self, message: Message, params: WebhookParams) -> None:
        """Permanent: what the receiver says with 4xx, but for those that ask to try again."""
        receiver = self.receiver(params)
        body = json.dumps({**message.as_event(), "body": params.body}).encode()
        headers = _signed(message.id, int(time.time()), body, self._secrets[receiver])
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy that could reach further, no .netrc
                with session.post(
                    params.url,
                    data=body,
                    headers=headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                    stream=True,  # what else it answers is not read: it could go on for ever
                ) as answer:
                    pass
        except requests.RequestException as error:
            words = f"the receiver at {receiver} cannot be reached: {type(error).__name__}"
            raise DeliveryFailed(words, permanent=False) from error
        if not 200 <= answer.status_code < 300:
            raise DeliveryFailed(
                f"the receiver at {receiver} answered {answer.status_code}",
                permanent=answer.status_code < 500 and answer.status_code not in _PASSING,
                retry_after=seconds_of(answer.headers.get("Retry-After")),
            )


def _signed(message_id: str, moment: int, body: bytes, key: bytes) -> dict[str, str]:
    """The headers that let the receiver tell that the message is ours, whole, and not an old one."""
    signature = hmac.new(key, f"{message_id}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "slurm-proxy",
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
