"""One rig for each channel: the server that it sends to, its settings, received messages and refusals."""

import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from apprise import Apprise
from pika import BasicProperties

from app.constants import Settings
from app.environment import read_settings
from app.senders import SENDERS, Sender
from tests.support.real.http_services import (
    Answer,
    AppriseTarget,
    GmailService,
    HttpService,
    SlackService,
    WebhookReceiver,
    google_error,
    json_answer,
)
from tests.support.real.rabbitmq import RabbitMq
from tests.support.real.smtp import SmtpServer


@dataclass(frozen=True)
class Arrival:
    """One message as its receiver sees it."""

    key: str  # what a receiver deduplicates by
    subject: str
    text: str
    raw: Any  # in the protocol's own form


class Channel(ABC):
    """`start` and `stop` are those of the server; nothing that arrived is forgotten between them."""

    method: ClassVar[str]
    host = "127.0.0.1"
    port: int
    secrets: tuple[str, ...] = ()  # what no error may show
    unreachable: str  # how an error names the server that is away
    key_is_id: ClassVar[bool] = True  # otherwise the task's uuid stands for it

    @abstractmethod
    def settings(self, port: int) -> dict[str, Any]:
        """With the server at `port`, its own or that of a network in between."""

    @abstractmethod
    def params(self) -> dict[str, Any]:
        """What a caller gives; `subject` and words are the content's by then."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def arrivals(self) -> list[Arrival]:
        """All so far, in order."""

    def received(self) -> list[str]:
        return [arrival.key for arrival in self.arrivals()]

    @abstractmethod
    def refuse(self) -> str:
        """From now on the server does not take the message, for good; returns what a user should read."""

    @cached_property
    def _senders(self) -> list[Sender]:
        return []

    def configured(self, port: int | None = None, **settings: Any) -> tuple[Settings, Sender]:
        built = read_settings({**self.settings(port or self.port), **settings})
        sender = SENDERS[self.method].from_settings(built)
        assert sender is not None
        self._senders.append(sender)
        return built, sender

    def close(self) -> None:
        """The connections that senders kept."""
        for sender in self._senders:
            sender.close_idle()


class RateLimited(Channel):
    """One whose server can say when to come back."""

    @abstractmethod
    def busy(self, retry_after: str) -> None:
        """The next message is one too many."""


def started(channel: Channel) -> Iterator[Channel]:
    """With its server, for as long as a fixture lives."""
    channel.start()
    yield channel
    channel.close()
    if channel.method != "rabbitmq":
        channel.stop()  # the broker goes on for the next test


def as_variable(value: object) -> str:
    """A setting as it stands in the environment."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _arrived_mail(mail: EmailMessage) -> Arrival:
    plain = mail.get_body(("plain",))
    assert plain is not None
    key = mail["Message-ID"].removeprefix("<").partition("@")[0]
    return Arrival(key, str(mail["Subject"]), str(plain.get_content()), mail)


class EmailChannel(Channel):
    method = "email"
    secrets = ("the mail server's secret words",)

    def __init__(self, folder: Path) -> None:
        self.server = SmtpServer(folder, "starttls", ("proxy", self.secrets[0]))
        self.port = self.server.port
        self.unreachable = "the mail server cannot be used"

    def settings(self, port: int) -> dict[str, Any]:
        return {
            "NOTIFICATIONS_SMTP_SERVER": self.host,
            "NOTIFICATIONS_SMTP_PORT": port,
            "NOTIFICATIONS_SMTP_CA_PATH": self.server.ca_path,
            "NOTIFICATIONS_SMTP_USERNAME": "proxy",
            "NOTIFICATIONS_SMTP_PASSWORD": self.secrets[0],
            "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS": 1,
        }

    def params(self) -> dict[str, Any]:
        return {"sender": "The Cluster <cluster@example.com>", "recipient": "someone@example.com"}

    def start(self) -> None:
        self.server.__enter__()

    def stop(self) -> None:
        self.server.__exit__()

    def arrivals(self) -> list[Arrival]:
        return [_arrived_mail(mail.message) for mail in self.server.mails]

    def refuse(self) -> str:
        self.server.answers["someone@example.com"] = "550 no such user here"
        return "the mail server refuses the message: 550 no such user here"


class HttpChannel(Channel):
    """What the channels have in common whose server is an HttpService."""

    def __init__(self, service: HttpService) -> None:
        self.service = service
        self.port = service.port

    def start(self) -> None:
        self.service.start()

    def stop(self) -> None:
        self.service.stop()


class GmailChannel(HttpChannel, RateLimited):
    method = "gmail"
    unreachable = "Gmail cannot be reached"

    def __init__(self, folder: Path) -> None:
        self.gmail = GmailService()
        super().__init__(self.gmail)
        self.credentials = folder / "gmail.json"
        self.secrets = (
            self.gmail.client_secret,
            self.gmail.refresh_token,
            "PRIVATE KEY",
            "ya29.",
            "assertion",
        )

    def settings(self, port: int) -> dict[str, Any]:
        url = f"http://{self.host}:{port}"
        self.gmail.write_service_account(self.credentials, url)
        return {
            "NOTIFICATIONS_GMAIL_CREDENTIALS_PATH": self.credentials,
            "NOTIFICATIONS_GMAIL_API_URL": url,
            "NOTIFICATIONS_HTTP_TIMEOUT_SECONDS": 1,
        }

    def params(self) -> dict[str, Any]:
        return {"sender": "The Cluster <cluster@example.com>", "recipient": "someone@example.com"}

    def arrivals(self) -> list[Arrival]:
        return [_arrived_mail(mail) for mail in self.gmail.mails]

    def refuse(self) -> str:
        self.gmail.refused.add("someone@example.com")
        return "Gmail refuses the message: 400 Invalid To header"

    def busy(self, retry_after: str) -> None:
        answer = google_error(
            429, "Too many requests", "rateLimitExceeded", "RESOURCE_EXHAUSTED", Retry_After=retry_after
        )
        self.gmail.answers += [self.token(), answer]

    def token(self) -> Answer:
        """For the question that comes before the one that counts."""
        return json_answer({"access_token": "ya29.any", "expires_in": 3599, "token_type": "Bearer"})


class SlackChannel(HttpChannel, RateLimited):
    method = "slack"
    unreachable = "Slack cannot be reached"

    def __init__(self, folder: Path) -> None:
        self.slack = SlackService()
        super().__init__(self.slack)
        self.secrets = (self.slack.token,)

    def settings(self, port: int) -> dict[str, Any]:
        return {
            "NOTIFICATIONS_SLACK_BOT_TOKEN": self.slack.token,
            "NOTIFICATIONS_SLACK_API_URL": f"http://{self.host}:{port}/api/",
            "NOTIFICATIONS_HTTP_TIMEOUT_SECONDS": 1,
        }

    def params(self) -> dict[str, Any]:
        return {"channel": "#jobs"}

    def arrivals(self) -> list[Arrival]:
        return [
            Arrival(
                message["metadata"]["event_payload"]["id"],
                message["blocks"][0]["text"]["text"],
                "\n".join(block["text"]["text"] for block in message["blocks"][1:]),
                message,
            )
            for message in self.slack.messages
        ]

    def refuse(self) -> str:
        self.slack.channels.clear()
        return "Slack refuses the message to #jobs: channel_not_found"

    def busy(self, retry_after: str) -> None:
        self.slack.answers.append(
            json_answer({"ok": False, "error": "ratelimited"}, 429, Retry_After=retry_after)
        )


class RabbitmqChannel(Channel):
    """A queue of its own for each test, on the one broker."""

    method = "rabbitmq"
    secrets = (RabbitMq.password,)

    def __init__(self, broker: RabbitMq, queue: str) -> None:
        self.broker = broker
        self.queue = queue
        self.port = broker.port
        self.unreachable = "RabbitMQ cannot be used"
        self._taken: list[tuple[BasicProperties, bytes]] = []
        self._params: dict[str, Any] = {"queue": queue, "body": {"own": ["words", 1, None]}}

    def settings(self, port: int) -> dict[str, Any]:
        return {
            "NOTIFICATIONS_RABBITMQ_HOST": self.host,
            "NOTIFICATIONS_RABBITMQ_PORT": port,
            "NOTIFICATIONS_RABBITMQ_USERNAME": self.broker.username,
            "NOTIFICATIONS_RABBITMQ_PASSWORD": self.broker.password,
            "NOTIFICATIONS_RABBITMQ_TIMEOUT_SECONDS": 2,
        }

    def params(self) -> dict[str, Any]:
        return self._params

    def start(self) -> None:
        self.broker.start()

    def stop(self) -> None:
        self.broker.stop()

    def arrivals(self) -> list[Arrival]:
        """Takes what is in the queue: the broker has confirmed all of it by then."""
        with self.broker.connect() as connection:
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True)
            while (got := channel.basic_get(self.queue))[0] is not None:
                self._taken.append((got[1], got[2]))
                channel.basic_ack(got[0].delivery_tag)
        return [
            _arrived_event(str(properties.message_id), body, properties) for properties, body in self._taken
        ]

    def refuse(self) -> str:
        self._params = {"queue": self.queue, "passive": True}
        return "RabbitMQ refuses the message: 404 NOT_FOUND - no queue"


def _arrived_event(key: str, body: bytes, raw: Any) -> Arrival:
    event = json.loads(body)
    return Arrival(key, event["subject"], event["text"], (event, raw))


class WebhookChannel(HttpChannel, RateLimited):
    method = "webhook"

    def __init__(self, folder: Path) -> None:
        self.receiver = WebhookReceiver()
        super().__init__(self.receiver)
        self.secrets = (self.receiver.secret, self.receiver.secret.removeprefix("whsec_"))
        self.unreachable = f"the receiver at 127.0.0.1:{self.port} cannot be reached"
        self._port_to_call = self.port

    def settings(self, port: int) -> dict[str, Any]:
        self._port_to_call = port
        return {
            "NOTIFICATIONS_WEBHOOK_RECEIVERS": {f"{self.host}:{port}": self.receiver.secret},
            "NOTIFICATIONS_HTTP_TIMEOUT_SECONDS": 1,
        }

    def params(self) -> dict[str, Any]:
        url = f"http://{self.host}:{self._port_to_call}/hooks/jobs?own=1"
        return {"url": url, "body": {"own": ["words", 1, None]}}

    def arrivals(self) -> list[Arrival]:
        return [
            _arrived_event(request.headers["webhook-id"], request.body, request)
            for request, _ in self.receiver.events
        ]

    def refuse(self) -> str:
        self.receiver.answers.append(Answer(410))
        return f"the receiver at 127.0.0.1:{self.port} answered 410"

    def busy(self, retry_after: str) -> None:
        self.receiver.answers.append(Answer(429, headers={"Retry-After": retry_after}))


class AppriseChannel(HttpChannel):
    """Its protocol has no place for a key, and its library does not tell why a message was not taken."""

    method = "apprise"
    unreachable = "the target team did not accept the message"
    key_is_id = False

    def __init__(self, folder: Path) -> None:
        self.target = AppriseTarget()
        super().__init__(self.target)
        self.secrets = ("the-secret-of-the-url",)

    def settings(self, port: int) -> dict[str, Any]:
        url = f"json://user:{self.secrets[0]}@{self.host}:{port}/?cto=1&rto=1"
        return {"NOTIFICATIONS_APPRISE_TARGETS": {"team": url}}

    def params(self) -> dict[str, Any]:
        return {"target": "team"}

    def arrivals(self) -> list[Arrival]:
        return [
            Arrival(
                "".join(re.findall(r"^Task +(\S+)$", message["message"], re.MULTILINE)),
                message["title"],
                message["message"],
                message,
            )
            for message in self.target.messages
        ]

    def refuse(self) -> str:
        self.target.status = 403
        return self.unreachable


with warnings.catch_warnings():  # Apprise looks at all that it has once, and at an old module with it
    warnings.simplefilter("ignore", DeprecationWarning)
    Apprise.instantiate("json://localhost/")

CHANNELS_IN_A_FOLDER: dict[str, Callable[[Path], Channel]] = {
    channel.method: channel
    for channel in (EmailChannel, GmailChannel, SlackChannel, WebhookChannel, AppriseChannel)
}
