"""However slowly or endlessly a server answers, its channel is free again in time, and memory stays small."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from app.environment import read_settings
from app.errors import DeliveryFailed
from app.models.content import Content
from app.senders import SENDERS, Message, Sender
from app.senders.deadline import Deadline
from tests.conftest import until
from tests.support.channels import (
    AppriseChannel,
    GmailChannel,
    HttpChannel,
    SlackChannel,
    WebhookChannel,
    started,
)
from tests.support.real.http_services import Answer
from tests.support.real.scripted import Drip, ScriptedBroker, ScriptedServer, ScriptedSmtp, Words

pytestmark = pytest.mark.timed

TIMEOUT = 0.5
HTTP_TIMEOUT = 1.0  # the least that its setting takes
IN_TIME = 4  # seconds; what is beyond the deadline is the machine's own slowness
MESSAGE = Message("key-1", "end", Content(subject="it has ended"))
TLS_RECORD = Drip(b"\x16\x03\x03\x3f\xff", b"\0")


@pytest.fixture
def configure() -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def configured(method: str, **settings: Any) -> Sender:
        sender = SENDERS[method].from_settings(read_settings(settings))
        assert sender is not None
        made.append(sender)
        return sender

    yield configured
    for sender in made:
        sender.close_idle()


def attempt(sender: Sender, params: dict[str, Any], seconds: float = IN_TIME) -> DeliveryFailed | None:
    """Return why the message was not sent; AssertionError if that takes too long."""
    began, failure = time.monotonic(), None
    try:
        sender.send(MESSAGE, sender.Params.model_validate(params))
    except DeliveryFailed as error:
        failure = error
    assert time.monotonic() - began < seconds
    return failure


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def little_memory() -> Iterator[None]:
    """AssertionError if what is done inside takes more than 10 MB at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# --- the deadline itself ---------------------------------------------------------------------


def test_a_deadline_ends_a_read_on_every_connection_that_it_watches() -> None:
    ours, theirs = socket.socketpair()

    def read() -> None:
        with Deadline(0.1) as deadline:
            deadline.watch(ours)
            raise ValueError(ours.recv(1))  # the end of the stream

    with ours, theirs, pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        read()


def test_a_deadline_leaves_no_descriptor_and_no_thread_behind() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before, threads = open_files(), threading.active_count()
        for _ in range(20):
            with Deadline(60) as deadline:
                deadline.watch(ours)
        assert open_files() == before
        until(lambda: threading.active_count() <= threads, 5, "the end of the timers")
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_a_deadline_counts_for_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have any number of addresses that never answer."""
    silent = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 9))

    class Silent(socket.socket):
        def connect(self, address: Any) -> None:
            time.sleep(self.gettimeout() or 0)
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [silent] * 50)
    monkeypatch.setattr(socket, "socket", Silent)
    began = time.monotonic()
    with pytest.raises(TimeoutError), Deadline(0.3) as deadline:
        deadline.connect("many.example.com", 9, 0.1)
    assert time.monotonic() - began < 2


# --- email -----------------------------------------------------------------------------------


def email_settings(port: int, security: str = "none") -> dict[str, Any]:
    return {
        "NOTIFICATIONS_SMTP_SERVER": "127.0.0.1",
        "NOTIFICATIONS_SMTP_PORT": port,
        "NOTIFICATIONS_SMTP_SECURITY": security,
        "NOTIFICATIONS_SMTP_USERNAME": "proxy",
        "NOTIFICATIONS_SMTP_PASSWORD": "secret words",
        "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS": TIMEOUT,
    }


MAIL = {"sender": "c@example.com", "recipient": "ann@example.com"}
SMTP_ANSWERS: dict[str, Words] = {
    "a line": Drip(b"250-", b"x"),
    "lines": Drip(b"", b"250-x\r\n"),
    "lines without end": Drip(b"", b"250-x\r\n", pause=0),
}


@pytest.mark.parametrize("answer", SMTP_ANSWERS)
@pytest.mark.parametrize("command", ["greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."])
def test_a_mail_server_that_drips_holds_no_mail_but_that_one(
    configure: Callable[..., Sender], command: str, answer: str
) -> None:
    with ScriptedSmtp({command: SMTP_ANSWERS[answer]}, once=True) as server:
        sender = configure("email", **email_settings(server.port))
        failure = attempt(sender, MAIL)
        assert failure is not None
        assert not failure.permanent
        assert ("more than" if "end" in answer else "within") in str(failure)
        assert attempt(sender, MAIL) is None
        until(lambda: len(server.mails) == 1, 5, "the mail")


@pytest.mark.parametrize(
    ("security", "script"),
    [("starttls", {"STARTTLS": SMTP_ANSWERS["a line"]}), ("starttls", {"STARTTLS": b"220 go on\r\n"})],
)
def test_a_mail_server_that_drips_before_or_within_tls_is_left_in_time(
    configure: Callable[..., Sender], security: str, script: dict[str, Words]
) -> None:
    class Tls(ScriptedSmtp):
        def say(self, client: socket.socket, words: Words) -> None:
            super().say(client, words)
            if isinstance(words, bytes) and words.startswith(b"220 go on"):
                super().say(client, TLS_RECORD)

    with Tls(script) as server:
        failure = attempt(configure("email", **email_settings(server.port, security)), MAIL)
        assert failure is not None
        assert not failure.permanent


def test_a_kept_mail_session_that_drips_is_left_in_time(configure: Callable[..., Sender]) -> None:
    script = {"NOOP": SMTP_ANSWERS["a line"], "QUIT": SMTP_ANSWERS["lines"]}
    with ScriptedSmtp(script, once=True) as server:
        sender = configure("email", **email_settings(server.port))
        assert attempt(sender, MAIL) is None
        failure = attempt(sender, MAIL)
        assert "within" in str(failure)
        assert attempt(sender, MAIL) is None
        began = time.monotonic()
        sender.close_idle()
        assert time.monotonic() - began < IN_TIME
        until(lambda: len(server.mails) == 2, 5, "the mails")


def test_a_refusal_is_reported_even_if_the_server_drips_afterwards(configure: Callable[..., Sender]) -> None:
    with ScriptedSmtp({"RCPT": b"550 5.1.1 unknown\r\n", "RSET": SMTP_ANSWERS["lines"]}) as server:
        failure = attempt(configure("email", **email_settings(server.port)), MAIL)
        assert failure is not None
        assert failure.permanent


# --- gmail, slack, webhook, apprise ----------------------------------------------------------

HTTP_ANSWERS: dict[str, Words] = {
    "a status line": Drip(b"HTTP/1.1 2", b"0"),
    "headers": Drip(b"HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n"),
    "a header": Drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"),
    "interim answers": Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers without end": Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0),
    "a body with a length": Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" "),
    "a body without a length": Drip(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": Drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a body without end": Drip(b"HTTP/1.1 200 OK\r\n\r\n", b" ", pause=0),
    "chunks without end": Drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", pause=0
    ),
    "a refusal without end": Drip(b"HTTP/1.1 400 Bad Request\r\n\r\n", b" ", pause=0),
}


# One channel shows it all, for those that have HTTP in common.
HTTP_CASES = [("slack", answer) for answer in HTTP_ANSWERS] + [
    (kind, answer)
    for kind in ("gmail's token", "gmail", "webhook")
    for answer in ("headers", "a body without a length", "a body without end")
]


def http_channel(kind: type[Any], folder: Path) -> Iterator[HttpChannel]:
    channel: Any = kind(folder)
    yield from cast("Iterator[HttpChannel]", started(channel))


@pytest.fixture
def http(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[HttpChannel, Callable[..., None]]]:
    """A channel, and what has its server answer in that way once."""
    kinds: dict[str, Any] = {"slack": SlackChannel, "gmail": GmailChannel, "webhook": WebhookChannel}
    for channel in http_channel(kinds[request.param.partition("'")[0]], tmp_path):

        def answer(words: Answer, channel: Any = channel) -> None:
            before = [channel.token()] if request.param == "gmail" else []
            channel.service.answers += [*before, words]

        yield channel, answer


@pytest.mark.parametrize(("http", "answer"), HTTP_CASES, indirect=["http"])
def test_a_web_server_that_drips_holds_no_message_but_that_one(
    http: tuple[HttpChannel, Callable[..., None]], answer: str
) -> None:
    channel, say = http
    _, sender = channel.configured(NOTIFICATIONS_HTTP_TIMEOUT_SECONDS=HTTP_TIMEOUT)
    say(Answer(raw=HTTP_ANSWERS[answer]))
    with little_memory():
        failure = attempt(sender, channel.params())
    if not isinstance(channel, WebhookChannel):  # which only reads the status
        assert failure is not None
        assert not failure.permanent
    received = len(channel.received())
    assert attempt(sender, channel.params()) is None
    assert len(channel.received()) == received + 1


@pytest.mark.parametrize("http", ["slack", "gmail's token", "gmail", "webhook"], indirect=True)
def test_a_compressed_answer_is_not_inflated(http: tuple[HttpChannel, Callable[..., None]]) -> None:
    channel, say = http
    _, sender = channel.configured(NOTIFICATIONS_HTTP_TIMEOUT_SECONDS=HTTP_TIMEOUT)
    say(Answer(200, gzip.compress(bytes(200_000_000), 1), {"Content-Encoding": "gzip"}))
    with little_memory():
        failure = attempt(sender, channel.params(), 10)
    assert failure is None or not failure.permanent
    assert channel.service.requests[-1].headers["accept-encoding"] == "identity"


def test_a_web_server_that_drips_within_tls_is_left_in_time(configure: Callable[..., Sender]) -> None:
    def drip(server: ScriptedServer, client: socket.socket) -> None:
        server.say(client, TLS_RECORD)

    with ScriptedServer(drip) as server:
        host = f"127.0.0.1:{server.port}"
        receivers = {host: WebhookChannel(Path()).receiver.secret}
        sender = configure(
            "webhook",
            NOTIFICATIONS_WEBHOOK_RECEIVERS=receivers,
            NOTIFICATIONS_HTTP_TIMEOUT_SECONDS=HTTP_TIMEOUT,
        )
        failure = attempt(sender, {"url": f"https://{host}/"})
        assert failure is not None
        assert not failure.permanent


@pytest.mark.parametrize("answer", ["headers", "a body without a length", "a body without end"])
def test_an_apprise_target_that_drips_holds_no_message_but_that_one(tmp_path: Path, answer: str) -> None:
    """Starting a process takes a while on a busy machine: more time than for the others."""
    channel: Any
    for channel in http_channel(AppriseChannel, tmp_path):
        _, sender = channel.configured(NOTIFICATIONS_HTTP_TIMEOUT_SECONDS=4)
        channel.service.answers.append(Answer(raw=HTTP_ANSWERS[answer]))
        failure = attempt(sender, channel.params(), 10)
        assert failure is not None
        assert not failure.permanent
        assert attempt(sender, channel.params(), 10) is None
        assert len(channel.received()) == 1


# --- rabbitmq --------------------------------------------------------------------------------


def broker_settings(port: int, **settings: Any) -> dict[str, Any]:
    return {
        "NOTIFICATIONS_RABBITMQ_HOST": "127.0.0.1",
        "NOTIFICATIONS_RABBITMQ_PORT": port,
        "NOTIFICATIONS_RABBITMQ_PASSWORD": "guest",
        "NOTIFICATIONS_RABBITMQ_TIMEOUT_SECONDS": TIMEOUT,
        **settings,
    }


BROKER_ANSWERS: dict[str, Words] = {
    "a frame": Drip(b"\x01\0\0\0\0\x7f\xff", b"\0"),
    "heartbeats": Drip(b"", b"\x08\0\0\0\0\0\0\xce"),
    "a frame without end": Drip(b"\x01\0\0\x7f\xff\xff\xff", b"\0", pause=0),
    "heartbeats without end": Drip(b"", b"\x08\0\0\0\0\0\0\xce", pause=0),
}


@pytest.mark.parametrize("answer", BROKER_ANSWERS)
@pytest.mark.parametrize("stage", ["start", "tune", "open", "channel", "queue", "confirm", "ack"])
def test_a_broker_that_drips_holds_no_message_but_that_one(
    configure: Callable[..., Sender], stage: str, answer: str
) -> None:
    with ScriptedBroker(stage, BROKER_ANSWERS[answer]) as server:
        sender = configure("rabbitmq", **broker_settings(server.port))
        failure = attempt(sender, {"queue": "jobs"})
        assert failure is not None
        assert not failure.permanent
        assert attempt(sender, {"queue": "jobs"}) is None


@pytest.mark.parametrize("stage", ["channel close", "close"])
def test_a_broker_that_drips_at_the_end_is_left_in_time(configure: Callable[..., Sender], stage: str) -> None:
    with ScriptedBroker(stage, BROKER_ANSWERS["heartbeats"]) as server:
        sender = configure("rabbitmq", **broker_settings(server.port))
        assert attempt(sender, {"queue": "jobs"}) is None
        began = time.monotonic()
        sender.close_idle()
        assert time.monotonic() - began < IN_TIME


def test_a_broker_that_drips_within_tls_is_left_in_time(configure: Callable[..., Sender]) -> None:
    def drip(server: ScriptedServer, client: socket.socket) -> None:
        server.say(client, TLS_RECORD)

    with ScriptedServer(drip) as server, suppress(OSError):
        settings = broker_settings(server.port, NOTIFICATIONS_RABBITMQ_TLS=True)
        failure = attempt(configure("rabbitmq", **settings), {"queue": "jobs"})
        assert failure is not None
        assert not failure.permanent
