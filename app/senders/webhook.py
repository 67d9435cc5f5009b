"""The method `webhook`: POSTs the event as JSON, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.rules import Line, must
from app.senders.base import Message, Sender, seconds_of, settings_of

_PASSING = (408, 409, 425, 429)  # beside 5xx


# Segments by which a path leads elsewhere than it seems to.
_DOTS = re.compile(r"(^|[/\\]|%2f|%5c)(\.|%2e){1,2}([/\\]|%2f|%5c|$)", re.IGNORECASE)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if (
        not value.isascii()
        or " " in value
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.port == 0
        or _DOTS.search(parts.path)
    ):
        raise ValueError("not a plain URL")
    return value


def _receiver(url: str) -> str:
    """The host, with the port that the URL names."""
    return urlsplit(url).netloc.lower()


def _allowed(url: str, info: ValidationInfo) -> str:
    """Where no receiver is listed at all, the method is not configured, which is no fault of the URL."""
    settings = settings_of(info)
    secrets = settings.webhook_secrets() if settings else {}
    if secrets and _receiver(url) not in secrets:
        words = "must be at a host that this server's operator has listed"
        raise PydanticCustomError("rule", "{words}", {"words": words})
    return url


class WebhookParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Annotated[
        Annotated[
            Line,
            AfterValidator(_url),
            must(
                "be an http or https URL in ASCII, without blanks, a user or dot segments in it",
                pattern='^[Hh][Tt][Tt][Pp][Ss]?://(?![^/?#]*@)[!-"$-.0-9;->A-~][!-~]*$',
            ),
        ],
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

    @staticmethod
    def receiver(params: WebhookParams) -> str:
        return params.url

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Made once: to read all authorities of the system takes longer than a message."""
        return ssl.create_default_context()

    def send(self, message: Message, params: WebhookParams) -> None:
        """Permanent: what the receiver says with 4xx, but for those that ask to try again."""
        receiver = _receiver(params.url)
        body = json.dumps({**message.as_event(), "body": params.body}).encode()
        headers = _signed(message.id, int(time.time()), body, self._secrets[receiver])
        status, retry_after = self._posted(params.url, body, headers)
        if not 200 <= status < 300:
            raise DeliveryFailed(
                f"the receiver at {receiver} answered {status}",
                permanent=300 <= status < 500 and status not in _PASSING,
                retry_after=seconds_of(retry_after),
            )

    def _posted(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Status and Retry-After. What else it answers is not read, and all of it must not take too long."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", urlunsplit(("", "", parts.path or "/", parts.query, ""))
        if parts.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(
                host, parts.port, timeout=self._timeout, context=self._trust
            )
        else:
            connection = HTTPConnection(host, parts.port, timeout=self._timeout)
        deadline = threading.Timer(2 * self._timeout, _break_off, [connection])
        deadline.start()
        try:
            with closing(connection):
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.headers.get("Retry-After")
        except (HTTPException, OSError, ValueError) as error:
            words = f"the receiver at {_receiver(url)} cannot be reached: {type(error).__name__}"
            raise DeliveryFailed(words, permanent=False) from error
        finally:
            deadline.cancel()


def _break_off(connection: HTTPConnection) -> None:
    """Wakes whoever reads from it, however slowly the other side goes on."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


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
