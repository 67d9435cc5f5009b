"""The method `webhook`: POSTs the event as JSON, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.messages.placeholders import to_one_line
from app.models.rules import Line, Rule
from app.senders.authorities import read_authorities
from app.senders.base import (
    Message,
    Receiver,
    Sender,
    drop_description,
    settings_from_context,
    text_param,
)
from app.senders.deadline import Deadline
from app.senders.http import parse_retry_after, send_request
from app.senders.plain_url import require_plain_url

# Answers after which a message is retried, beside 5xx. With 401, 403 and 407 the service is refused: its
# signature, its address, or its login at the proxy.
_TEMPORARY_STATUSES = (401, 403, 407, 408, 409, 425, 429)


def _host_with_port(url: str) -> str:
    """Return the host, with the port that the URL names."""
    return urlsplit(url).netloc.lower()


def _require_listed_host(url: str, info: ValidationInfo) -> str:
    """Require a host that the operator lists. Without any, the method is not configured: no fault."""
    settings = settings_from_context(info)
    secrets = settings.webhook_secrets() if settings else {}
    if secrets and _host_with_port(url) not in secrets:
        words = "must be at a host that this server's operator has listed"
        raise PydanticCustomError("rule", "{words}", {"words": words})
    return url


class WebhookParams(BaseModel):
    """The parameters: URL, subject and body."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=drop_description)

    url: Annotated[
        Annotated[
            Line,
            AfterValidator(require_plain_url),
            Rule(
                "be an http or https URL in ASCII, without blanks, backslashes, a user or dot segments in it",
                pattern=r'^[Hh][Tt][Tt][Pp][Ss]?://(?![^/?#]*@)[!-"$-.0-9;->A-\[\]-~][!-\[\]-~]*$',
            ),
        ],
        AfterValidator(_require_listed_host),
    ]
    subject: Line | None = None
    body: JsonValue = None


class WebhookSender(Sender):
    """A channel to the hosts of NOTIFICATIONS_WEBHOOK_RECEIVERS."""

    Params: ClassVar[type[WebhookParams]] = WebhookParams

    def __init__(self, settings: Settings) -> None:
        """Create the channel; nothing connects yet."""
        self._secrets = settings.webhook_secrets()
        self._timeout = settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS
        self._ca_path = settings.NOTIFICATIONS_WEBHOOK_CA_PATH

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no receivers are listed.

        Raises:
            SettingsError: The file of the certificate authority cannot be used.
        """
        if not settings.webhook_secrets():
            return None
        sender = cls(settings)
        if sender._ca_path is not None:
            sender._trust  # noqa: B018 - reads the file now
        return sender

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the URL."""
        return str(params.get("url") or "")

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the body; empty unless the body is text."""
        return text_param(params, "body")

    @classmethod
    def receivers(cls, params: WebhookParams) -> list[Receiver]:
        """Return the URL in scheme, host with port, path, and query."""
        url = urlsplit(params.url)
        return [Receiver(params.url, (url.scheme, url.netloc.lower(), url.path or "/", url.query))]

    @staticmethod
    def split_pattern(pattern: str) -> tuple[str, ...]:
        """Split at the first `://`, `/` and `?`. After a path that ends with `*`, any query matches.

        Raises:
            ValueError: The pattern has no scheme.
        """
        scheme, colon, rest = pattern.partition("://")
        if not colon:
            raise ValueError("must be a URL, such as https://example.com/jobs/*")
        host, _, target = rest.partition("/")
        path, mark, query = target.partition("?")
        if not mark and path.endswith("*"):
            query = "*"
        return scheme.lower(), host.lower(), f"/{path}", query

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test message to a URL."""
        return {"url": receiver}

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Return the trusted certificate authorities of the system and of the operator, read once."""
        return read_authorities("NOTIFICATIONS_WEBHOOK_CA_PATH", self._ca_path, beside_system=True)

    def send(self, message: Message, params: WebhookParams) -> None:
        """Post the event; only the status of the answer counts.

        Raises:
            DeliveryFailed: The receiver did not accept the event. 3xx and 4xx are final, except for some
                (see `_TEMPORARY_STATUSES`).
        """
        receiver = _host_with_port(params.url)
        body = json.dumps({**message.as_event(), "body": params.body}).encode()
        headers = _sign(message.id, int(time.time()), body, self._secrets[receiver])
        try:
            with Deadline(2 * self._timeout) as deadline:
                answer = send_request(
                    deadline,
                    "POST",
                    params.url,
                    body,
                    headers,
                    timeout=self._timeout,
                    trust=self._trust,
                    has_content=False,
                )
        except OSError as error:
            words = f"the receiver at {receiver} cannot be reached: {to_one_line(str(error))}"
            raise DeliveryFailed(words, permanent=False) from error
        if not 200 <= answer.status < 300:
            raise DeliveryFailed(
                f"the receiver at {receiver} answered {answer.status}",
                permanent=300 <= answer.status < 500 and answer.status not in _TEMPORARY_STATUSES,
                retry_after=parse_retry_after(answer.headers.get("Retry-After")),
            )


def _sign(message_id: str, moment: int, body: bytes, key: bytes) -> dict[str, str]:
    """Return the headers by which the receiver can verify origin, integrity and age of the message."""
    signature = hmac.new(key, f"{message_id}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "slurm-proxy",
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
