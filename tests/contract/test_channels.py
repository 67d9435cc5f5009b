"""Every channel on its real protocol: the promises that all channels share."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import ConnectionClosedByBroker
from pydantic import SecretStr, ValidationError

from app.environment import read_settings
from app.errors import DeliveryFailed
from app.lifecycle.deliver import Delivery
from app.lifecycle.retry_policy import DeliveryPolicy
from app.models.content import Content
from app.models.job_facts import JobFacts
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.senders import SENDERS, Message, Sender
from app.store.notification_queue import Claim, Outcome
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, not_covered, until
from tests.support.channels import (
    CHANNELS_IN_A_FOLDER,
    AppriseChannel,
    Channel,
    EmailChannel,
    GmailChannel,
    RabbitmqChannel,
    RateLimited,
    SlackChannel,
    WebhookChannel,
    as_variable,
    started,
)
from tests.support.real import RealPartMissing
from tests.support.real.http_services import Answer, HttpService, google_error, json_answer
from tests.support.real.network import Fault, Network
from tests.support.real.processes import free_port
from tests.support.real.rabbitmq import RabbitMq
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task, new_uuid

pytestmark = pytest.mark.timed

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CLAIM_FOR = timedelta(minutes=3)
POLICY = DeliveryPolicy(claim_timeout=CLAIM_FOR, retry_window=timedelta(days=1))
CONTENT = Content(
    subject="Größe: the job has ended — well",
    words="Hello, Ünï!\n.\nThe results are in $HOME.",
    facts=JobFacts.model_validate(
        {"slurm_job_id": 4711, "slurm_job_state": "COMPLETED", "name": "a job", "exit_code": 0}
    ),
    hint="Ask for 2 GB the next time.",
)


class Killed(BaseException):
    """kill -9, as far as the code that it hits can tell."""


class StoreOfTheKilled(SqliteStore):
    """Its process ends once the message has gone out, and before that is kept."""

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        raise Killed


class Outbox:
    """One message by one channel in a real store, and the deliveries that processes try of it."""

    def __init__(self, path: Path, channel: Channel, content: Content = CONTENT, **params: Any) -> None:
        self.path = path
        self.channel = channel
        self.settings, self.sender = channel.configured()
        self.store = SqliteStore(path)
        self.store.prepare()
        task = make_task()
        self.id = new_uuid()
        self.task_uuid = task["uuid"]
        self.key = self.id if channel.key_is_id else self.task_uuid
        notification = Notification(
            id=self.id,
            event="end",
            method=channel.method,
            params={**channel.params(), **params},
            content=content.model_copy(
                update={"facts": content.facts.model_copy(update={"task_uuid": task["uuid"]})}
            ),
            status=NotificationStatus.DUE,
            created_at=NOW,
            attempt_after=NOW,
        )
        self.store.add_record(
            TaskRecord(
                task=task,
                slurm_username=task["username"],
                created_at=NOW,
                updated_at=NOW,
                notifications=(notification,),
            )
        )
        self.delivery = self.delivery_of_another_process()

    def delivery_of_another_process(
        self, store: SqliteStore | None = None, sender: Sender | None = None, **settings: Any
    ) -> Delivery:
        context = {"settings": self.settings.model_copy(update=settings)}
        method = self.channel.method
        return Delivery(
            store or self.store,
            {method: sender or self.sender},
            POLICY,
            methods=[method],
            context=context,
            jitter=lambda: 1.0,
        )

    def deliver(self, now: datetime = NOW, delivery: Delivery | None = None) -> Notification:
        """Try the message, which must be due, and return its status."""
        assert (delivery or self.delivery).deliver_one(self.channel.method, now), "nothing was due"
        return self.notification()

    def is_due(self, now: datetime) -> bool:
        return self.delivery.deliver_one(self.channel.method, now)

    def notification(self) -> Notification:
        claim = self.store.find_notification(self.id)
        assert claim is not None
        return claim.notification


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[RabbitMq]:
    broker = RabbitMq()
    try:
        broker.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "RabbitMQ", str(missing))
    yield broker
    broker.__exit__()


def channel_of(request: pytest.FixtureRequest, method: str) -> Channel:
    if method == "rabbitmq":
        return RabbitmqChannel(request.getfixturevalue("rabbitmq"), f"jobs-{new_uuid()}")
    return CHANNELS_IN_A_FOLDER[method](request.getfixturevalue("tmp_path"))


EVERY_CHANNEL = [*CHANNELS_IN_A_FOLDER, pytest.param("rabbitmq", marks=pytest.mark.real)]


def test_every_channel_has_a_rig() -> None:
    assert {*CHANNELS_IN_A_FOLDER, "rabbitmq"} == SENDERS.keys() - {"test"}


@pytest.fixture(params=EVERY_CHANNEL)
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, request.param))


@pytest.fixture
def email(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "email"))


@pytest.fixture
def gmail(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "gmail"))


@pytest.fixture
def slack(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "slack"))


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "rabbitmq"))


@pytest.fixture
def webhook(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "webhook"))


@pytest.fixture
def apprise(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "apprise"))


WRONG_LOGINS: dict[str, dict[str, Any]] = {
    "email": {"NOTIFICATIONS_SMTP_PASSWORD": "another"},
    "gmail": {"NOTIFICATIONS_MAIL_SENDERS": "cluster@example.com"},
    "slack": {"NOTIFICATIONS_SLACK_BOT_TOKEN": "xoxb-another"},
    "rabbitmq": {"NOTIFICATIONS_RABBITMQ_PASSWORD": "another"},
}
REFUSALS = {
    "email": r"the mail server at 127\.0\.0\.1:\d+ cannot be used: .*535",
    "gmail": "Google grants no access for cluster@example.com: .*revoked",
    "slack": "Slack refuses the token: invalid_auth",
    "rabbitmq": r"RabbitMQ at 127\.0\.0\.1:\d+ cannot be used: .*ACCESS_REFUSED",
}


def test_check_of_a_login_sends_no_message(channel: Channel) -> None:
    has_login = channel.method in WRONG_LOGINS
    _, sender = channel.configured(NOTIFICATIONS_MAIL_SENDERS="cluster@example.com")
    assert sender.check_login() is has_login
    assert channel.arrivals() == []


def test_check_of_a_refused_login_raises_with_the_reason(channel: Channel) -> None:
    if channel.method not in WRONG_LOGINS:
        pytest.skip("there is no login")
    if isinstance(channel, GmailChannel):
        channel.gmail.is_revoked = True
    _, sender = channel.configured(**WRONG_LOGINS[channel.method])
    with pytest.raises(DeliveryFailed, match=REFUSALS[channel.method]) as failure:
        sender.check_login()
    assert not any(secret in str(failure.value) for secret in channel.secrets)
    assert "another" not in str(failure.value)


def test_check_of_a_login_at_an_absent_server_raises(channel: Channel) -> None:
    if channel.method not in WRONG_LOGINS:
        pytest.skip("there is no login")
    _, sender = channel.configured(free_port(), NOTIFICATIONS_MAIL_SENDERS="cluster@example.com")
    with pytest.raises(DeliveryFailed, match=r"cannot be (used|reached)"):
        sender.check_login()


def test_parameters_of_a_test_message_are_accepted_by_the_channel(channel: Channel) -> None:
    settings, sender = channel.configured()
    if isinstance(channel, RabbitmqChannel):
        channel.arrivals()  # makes the queue
    receivers = {"slack": "#jobs", "apprise": "team"}
    receivers["webhook"] = f"http://127.0.0.1:{channel.port}/hook"
    receivers["rabbitmq"] = getattr(channel, "queue", "")
    receiver = receivers.get(channel.method, "someone@example.com")
    params = sender.Params.model_validate(
        sender.params_for_receiver(receiver, settings), context={"settings": settings}
    )
    sender.send(Message("check-1", "test", Content(subject="A test message")), params)
    assert [arrival.subject for arrival in channel.arrivals()] == ["A test message"]


@pytest.fixture
def outbox(channel: Channel, tmp_path: Path) -> Iterator[Outbox]:
    yield from opened(Outbox(tmp_path / "store.sqlite3", channel))


def opened(outbox: Outbox) -> Iterator[Outbox]:
    yield outbox
    outbox.store.close()


def failure_of(sender: Sender, params: dict[str, Any], content: Content = CONTENT) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as failure:
        sender.send(Message("key-1", "end", content), sender.Params.model_validate(params))
    return failure.value


def in_time(call: Callable[[], Any], seconds: float) -> Any:
    """What `call` returns; AssertionError if that takes too long, and it goes on in the background."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"it did not end well within {seconds} s"
    return results[0]


def assert_readable(words: str | None, channel: Channel) -> None:
    """A sentence for a person, and nothing that only a receiver may know."""
    assert words
    assert not words.rstrip().endswith((":", "()"))
    for fragment in ("Traceback", "object at", "<", ">", "\n", *channel.secrets):
        assert fragment not in words, words


# --- what every channel promises ------------------------------------------------------------------


def test_a_message_arrives_once_and_whole(channel: Channel, outbox: Outbox) -> None:
    assert outbox.deliver().status is NotificationStatus.SENT
    assert not outbox.is_due(NOW + timedelta(days=1))
    (arrival,) = channel.arrivals()
    assert arrival.key == outbox.key
    assert arrival.subject == CONTENT.subject
    for line in CONTENT.words.splitlines():
        assert line in arrival.text.splitlines()
    for fact in ("4711", "COMPLETED", "a job", outbox.task_uuid):
        assert fact in arrival.text
    assert CONTENT.hint in arrival.text


def test_a_server_that_is_down_gets_the_message_once_it_is_up_again(channel: Channel, outbox: Outbox) -> None:
    channel.stop()
    try:
        first = outbox.deliver()
    finally:
        channel.start()
    assert first.status is NotificationStatus.RETRYING
    assert_readable(first.last_error, channel)
    assert str(first.last_error).startswith(channel.unreachable)
    assert first.attempt_after is not None
    assert not outbox.is_due(first.attempt_after - timedelta(milliseconds=1))
    assert channel.received() == []
    assert outbox.deliver(first.attempt_after).status is NotificationStatus.SENT
    assert channel.received() == [outbox.key]


def test_a_kill_before_the_message_goes_out_loses_nothing(channel: Channel, outbox: Outbox) -> None:
    killed = SqliteStore(outbox.path)
    assert killed.claim(channel.method, "the token of the killed", NOW, NOW + CLAIM_FOR) is not None
    killed.close()
    assert not outbox.is_due(NOW + CLAIM_FOR - SECOND)
    assert outbox.deliver(NOW + CLAIM_FOR + SECOND).status is NotificationStatus.SENT
    assert channel.received() == [outbox.key]


def test_a_kill_after_the_message_went_out_repeats_it_with_the_same_key(
    channel: Channel, outbox: Outbox
) -> None:
    store = StoreOfTheKilled(outbox.path)
    with pytest.raises(Killed):
        outbox.delivery_of_another_process(store).deliver_one(channel.method, NOW)
    store.close()
    assert channel.received() == [outbox.key]
    assert not outbox.is_due(NOW + CLAIM_FOR - SECOND)
    assert outbox.deliver(NOW + CLAIM_FOR + SECOND).status is NotificationStatus.SENT
    assert channel.received() == [outbox.key, outbox.key]


@pytest.mark.real
def test_a_message_of_a_killed_process_arrives_with_its_id(
    local_cluster: Cluster, local_user: str, rabbitmq: RabbitMq, tmp_path: Path
) -> None:
    """kill -9 while the service is at it with all channels at once."""
    channels: list[Channel] = [make(tmp_path) for make in CHANNELS_IN_A_FOLDER.values()]
    channels.append(RabbitmqChannel(rabbitmq, f"jobs-{new_uuid()}"))
    settings = {
        "TASK_ALLOWED_SERVICE_USERS": local_user,
        "NOTIFICATIONS_CLAIM_SECONDS": "5",
        "NOTIFICATIONS_SMTP_SECURITY": "starttls",
        "PYTHONWARNINGS": "error,ignore:'imghdr' is deprecated:DeprecationWarning",
    }
    params: dict[str, Any] = {}
    with ExitStack() as stack:
        (tmp_path / "unused").mkdir()
        smtp = stack.enter_context(SmtpServer(tmp_path / "unused"))
        networks = [stack.enter_context(Network(f"http://{item.host}:{item.port}")) for item in channels]
        for channel, network in zip(channels, networks, strict=True):
            stack.enter_context(contextmanager(started)(channel))
            network.fault = Fault.HANG
            given = channel.settings(int(network.url.rpartition(":")[2]))
            settings |= {name: as_variable(value) for name, value in given.items()}
            params[channel.method] = channel.params()
        settings |= {name: "30" for name in settings if name.endswith("_TIMEOUT_SECONDS")}
        service = stack.enter_context(Service(tmp_path, local_cluster, smtp, **settings))
        service.start()
        task = make_task(local_user, "/tmp/slurm-proxy-channels", cwd="/tmp", cmd="true", params=[])
        task["notification"] = {"methods": list(params), "params": params}
        assert service.post("/submit", {"task": task}).status_code == 200

        def are(status: NotificationStatus) -> bool:
            items = service.record(task)["notifications"]
            return bool(items) and {item["status"] for item in items} == {status}

        until(lambda: are(NotificationStatus.CLAIMED), 30, "a claim of each channel")
        service.kill()
        for network in networks:
            network.fault = Fault.NONE
        service.start()
        until(lambda: are(NotificationStatus.SENT), 60, f"sending all (see {service.log})")
        ids = {item["method"]: item["id"] for item in service.record(task)["notifications"]}
        assert service.stop() == 0
        for channel in channels:
            key = ids[channel.method] if channel.key_is_id else task["uuid"]
            assert channel.received() == [key], channel.method


def test_a_refusal_for_good_is_final_and_in_words(channel: Channel, tmp_path: Path) -> None:
    words = channel.refuse()
    outbox = Outbox(tmp_path / "store.sqlite3", channel)
    refused = outbox.deliver()
    outbox.store.close()
    is_told_apart = not isinstance(channel, AppriseChannel)
    assert refused.status is (NotificationStatus.DEAD if is_told_apart else NotificationStatus.RETRYING)
    assert str(refused.last_error).startswith(words)
    assert_readable(refused.last_error, channel)
    assert refused.attempt_after is None or not is_told_apart
    assert channel.received() == []


@pytest.mark.parametrize("channel", ["gmail", "slack", "webhook"], indirect=True)
def test_a_delay_of_seven_seconds_that_the_receiver_requests_is_respected(
    channel: RateLimited, outbox: Outbox
) -> None:
    channel.busy("7")
    first = outbox.deliver()
    assert (first.status, first.attempt_after) == (NotificationStatus.RETRYING, NOW + 7 * SECOND)
    assert_readable(first.last_error, channel)
    assert not outbox.is_due(NOW + 7 * SECOND - timedelta(milliseconds=1))
    assert channel.received() == []
    assert outbox.deliver(NOW + 7 * SECOND).status is NotificationStatus.SENT
    assert channel.received() == [outbox.key]


def test_a_server_that_never_answers_fails_in_time(channel: Channel) -> None:
    with Network(f"http://{channel.host}:{channel.port}") as network:
        port = int(network.url.rpartition(":")[2])
        _, sender = channel.configured(port)
        network.fault = Fault.HANG
        failure = in_time(lambda: failure_of(sender, channel.params()), 8)
        assert not failure.permanent
        assert_readable(str(failure), channel)
    assert channel.received() == []


HOSTILE = Content(
    subject="done\r\nBcc: evil@example.com\r\n\r\n<!channel> <https://evil.example.com|see> <b>&amp;",
    words="<!channel> <@U123> <https://evil.example.com|click> *bold*\n"
    ".\r\nBcc: evil@example.com\n<script>x()</script>",
    facts=JobFacts(name="<img src=x onerror=alert(1)>", slurm_job_state="COMPLETED"),
    hint="<i>&",
)


def test_hostile_words_stay_words(channel: Channel, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "store.sqlite3", channel, HOSTILE)
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    assert arrival.key == outbox.key
    assert "<script>x()</script>" in arrival.text
    assert "<!channel> <https://evil.example.com|see> <b>&amp;" in arrival.subject
    if isinstance(channel, EmailChannel | GmailChannel):
        mail = arrival.raw
        assert len(mail.get_all("Subject")) == 1
        assert mail["Bcc"] is None
        assert [address.addr_spec for address in mail["To"].addresses] == ["someone@example.com"]
        assert_html_is_harmless(mail.get_body(("html",)).get_content())
    if isinstance(channel, EmailChannel):
        assert channel.server.mails[0].recipients == ["someone@example.com"]
    if isinstance(channel, SlackChannel):
        assert {block["text"]["type"] for block in arrival.raw["blocks"]} == {"plain_text"}
        assert "<" not in arrival.raw["text"]
        assert "&lt;!channel&gt;" in arrival.raw["text"]
        assert "&lt;b&gt;&amp;amp;" in arrival.raw["text"]


def assert_html_is_harmless(html: str) -> None:
    for tag in ("<script", "<img", "<i>", "<b>", "<!channel"):
        assert tag not in html
    assert "&lt;script&gt;x()&lt;/script&gt;" in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_a_message_of_any_length_fits(channel: Channel, tmp_path: Path) -> None:
    content = Content(
        subject="a long one",
        words="0123456789 " * 10_000,
        facts=JobFacts(slurm_job_id=4711),
    )
    outbox = Outbox(tmp_path / "store.sqlite3", channel, content)
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    assert "0123456789 0123456789" in arrival.text


# --- connections that are kept --------------------------------------------------------------------


@pytest.mark.parametrize(
    "channel", ["email", pytest.param("rabbitmq", marks=pytest.mark.real)], indirect=True
)
def test_messages_that_follow_each_other_share_a_connection(channel: Channel) -> None:
    with Network(f"http://{channel.host}:{channel.port}") as network:
        _, sender = channel.configured(int(network.url.rpartition(":")[2]))
        params = sender.Params.model_validate(channel.params())
        sender.send(Message("key-1", "end", CONTENT), params)
        sender.send(Message("key-2", "end", CONTENT), params)
        assert network.connections == 1
        network.cut()  # a server may close what is kept at any time
        sender.send(Message("key-3", "end", CONTENT), params)
        assert network.connections == 2
        sender.close_idle()
        until(network.is_quiet, 5, "the end of the connection")
    assert channel.received() == ["key-1", "key-2", "key-3"]


@pytest.mark.parametrize(
    "channel", ["email", pytest.param("rabbitmq", marks=pytest.mark.real)], indirect=True
)
def test_a_refused_message_leaves_no_connection_open(channel: Channel) -> None:
    with Network(f"http://{channel.host}:{channel.port}") as network:
        _, sender = channel.configured(int(network.url.rpartition(":")[2]))
        sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate(channel.params()))
        channel.refuse()
        others = {"queue": "nobody's"} if isinstance(channel, RabbitmqChannel) else {}
        failure_of(sender, {**channel.params(), **others})
        until(network.is_quiet, 5, "the end of the connection")


@pytest.mark.parametrize(
    "channel", ["email", pytest.param("rabbitmq", marks=pytest.mark.real)], indirect=True
)
def test_no_connection_is_kept_while_nothing_is_due(channel: Channel, tmp_path: Path) -> None:
    with Network(f"http://{channel.host}:{channel.port}") as network:
        outbox = Outbox(tmp_path / "store.sqlite3", channel)
        outbox.settings, sender = channel.configured(int(network.url.rpartition(":")[2]))
        delivery = outbox.delivery_of_another_process(sender=sender)
        assert outbox.deliver(delivery=delivery).status is NotificationStatus.SENT
        assert not network.is_quiet()
        assert not delivery.deliver_one(channel.method, NOW)
        until(network.is_quiet, 5, "the end of the connection")
        outbox.store.close()


# --- for programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "channel", [pytest.param("rabbitmq", marks=pytest.mark.real), "webhook"], indirect=True
)
def test_programs_get_the_event_as_json(channel: Channel, outbox: Outbox) -> None:
    outbox.deliver()
    (arrival,) = channel.arrivals()
    event, raw = arrival.raw
    facts = {
        "id": outbox.id,
        "event": "end",
        "slurm_job_id": 4711,
        "slurm_job_state": "COMPLETED",
        "name": "a job",
        "exit_code": 0,
        "subject": CONTENT.subject,
        "body": {"own": ["words", 1, None]},
    }
    assert {name: event[name] for name in facts} == facts
    assert event["task_uuid"] == outbox.task_uuid
    if isinstance(channel, RabbitmqChannel):
        assert (raw.content_type, raw.delivery_mode) == ("application/json", 2)
        assert (raw.message_id, raw.type, raw.app_id) == (outbox.id, "job.end", "slurm-proxy")
        assert abs(raw.timestamp - time.time()) < 60
    else:
        assert raw.headers["content-type"] == "application/json"
        assert raw.path == "/hooks/jobs?own=1"


# --- mail, by either way --------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["email", "gmail"], indirect=True)
@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?done=0d=0aBcc:_evil@example.com?=",
        "done\nBcc: evil@example.com",
        "done\u2028Bcc: evil@example.com\x00\x0b",
        "x" * 900,
        "ü" * 900,
    ],
)
def test_a_subject_is_one_header(channel: Channel, tmp_path: Path, subject: str) -> None:
    outbox = Outbox(tmp_path / "store.sqlite3", channel, CONTENT.model_copy(update={"subject": subject}))
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    mail = arrival.raw
    assert mail["Bcc"] is None
    assert len(mail.get_all("Subject")) == 1
    assert [address.addr_spec for address in mail["To"].addresses] == ["someone@example.com"]
    assert CONTENT.words.splitlines()[0] in arrival.text


@pytest.mark.parametrize("channel", ["email", "gmail"], indirect=True)
@pytest.mark.parametrize("name", ["sender", "recipient", "reply_to"])
def test_a_name_beside_an_address_brings_no_header_along(channel: Channel, tmp_path: Path, name: str) -> None:
    hostile = '"=?utf-8?q?Ann=0d=0aBcc=3a_evil=40example.com?=" <someone@example.com>'
    outbox = Outbox(tmp_path / "store.sqlite3", channel, CONTENT, **{name: hostile})
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    assert arrival.raw["Bcc"] is None
    header = {"sender": "From", "recipient": "To", "reply_to": "Reply-To"}[name]
    assert [address.addr_spec for address in arrival.raw[header].addresses] == ["someone@example.com"]
    assert CONTENT.words.splitlines()[0] in arrival.text


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("recipient", "is_allowed"),
    [
        ("ann@example.com", True),
        ("ANN@Example.COM", True),
        ("Ann <ann@example.com>", True),
        ("anybody@example.org", True),
        (["ann@example.com", "bob@EXAMPLE.org"], True),
        ("bob@example.com", False),
        ("bob@sub.example.org", False),
        ("bob@example.org.example.net", False),
        ("bob@notexample.org", False),
        ('"ann@example.com" <bob@example.net>', False),
        (["ann@example.com", "bob@example.net"], False),
    ],
)
def test_mail_goes_only_where_the_operator_lets_it(method: str, recipient: object, is_allowed: bool) -> None:
    settings = read_settings({"NOTIFICATIONS_MAIL_ALLOWED": "ann@example.com,Example.org"})
    params = {"sender": "cluster@example.com", "recipient": recipient}
    assert is_taken(method, params, settings) is is_allowed
    assert is_taken(method, params, read_settings({}))


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("sender", "is_allowed"),
    [
        ("cluster@example.com", True),
        ("The Cluster <CLUSTER@Example.COM>", True),
        ("anybody@example.org", True),
        ("boss@example.com", False),
        ('"cluster@example.com" <boss@example.com>', False),
        ("anybody@sub.example.org", False),
    ],
)
def test_mail_comes_only_from_whom_the_operator_lets_it(method: str, sender: str, is_allowed: bool) -> None:
    settings = read_settings({"NOTIFICATIONS_MAIL_SENDERS": "cluster@example.com,Example.org"})
    params = {"sender": sender, "recipient": "ann@example.net"}
    assert is_taken(method, params, settings) is is_allowed
    assert is_taken(method, params, read_settings({}))


ROUTES = [
    "x%example.net@example.com",
    "x%example.net%example.org@example.com",
    "example.net!x@example.com",
    "example.org!example.net!x@example.com",
    "@example.net:x@example.com",
    "<@example.net:x@example.com>",
    '"x@example.net"@example.com',
    "x@example.net@example.com",
    "x\uff20example.net@example.com",  # full-width forms of @, % and !
    "x\uff05example.net@example.com",
    "example.net\uff01x@example.com",
    "/C=us/A=x/P=y/S=z/@example.com",
    "IMCEASMTP-x+40example+2Enet@example.com",
    "imceaex-_o=z_cn=x@example.com",
    "Ann <x%example.net@example.com>",
]


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize("field", ["sender", "recipient", "reply_to"])
@pytest.mark.parametrize("address", ROUTES)
def test_mail_address_with_a_route_to_another_domain_is_refused(
    method: str, field: str, address: str
) -> None:
    params = {"sender": "a@example.com", "recipient": "b@example.com", field: address}
    assert not is_taken(method, params, None)


@pytest.mark.parametrize("address", ["ann+jobs@example.com", "a/b@example.com", "d'a_b=c@example.com"])
def test_mail_address_with_special_characters_but_no_route_is_accepted(address: str) -> None:
    assert is_taken("email", {"sender": address, "recipient": address, "reply_to": address}, None)


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("reply_to", "is_allowed"),
    [
        ("ann@example.com", True),
        ("Help <DESK@cluster.example>", True),
        ("eve@example.net", False),
        ('"ann@example.com" <eve@example.net>', False),
    ],
)
def test_reply_to_is_accepted_only_if_the_operator_lists_it_as_recipient_or_sender(
    method: str, reply_to: str, is_allowed: bool
) -> None:
    mail = {"sender": "desk@cluster.example", "recipient": "ann@example.com", "reply_to": reply_to}
    lists = {
        "NOTIFICATIONS_MAIL_ALLOWED": "example.com",
        "NOTIFICATIONS_MAIL_SENDERS": "desk@cluster.example",
    }
    assert is_taken(method, mail, read_settings(lists)) is is_allowed
    assert is_taken(method, mail, read_settings({"NOTIFICATIONS_MAIL_SENDERS": "cluster.example"}))
    only_allowed = read_settings({"NOTIFICATIONS_MAIL_ALLOWED": "example.com"})
    assert is_taken(method, mail, only_allowed) is (reply_to == "ann@example.com")


@pytest.mark.parametrize("exchange", ["eve\nnts", "events\r", "eve\tnts", "events\x00", "e" * 256])
def test_exchange_name_that_the_broker_would_alter_is_refused(exchange: str) -> None:
    assert not is_taken("rabbitmq", {"exchange": exchange, "queue": "jobs"}, None)
    assert is_taken("rabbitmq", {"exchange": "eve nts", "queue": "jobs"}, None)


@pytest.mark.parametrize(
    "path",
    [
        "chem/../bio",
        "chem/%2E%2e/bio",
        "chem/.%2e/bio",
        "chem/..%2fbio",
        "chem/..%2Fbio",
        "chem%2f..%2fbio",
        "chem/%252e%252e/bio",
        "chem/%25252e%25252E/bio",
        "chem/..%252fbio",
        "chem/..;/bio",
        "chem/..;x=y/bio",
        "chem/%2e%2e%3b/bio",
        "chem/..%253b/bio",
        "chem/.;/bio",
        "chem/./bio",
        "chem\\bio",
        "chem\\..\\bio",
        "chem/..\\bio",
        "chem/..%5cbio",
        "chem/..%255cbio",
        "chem/..%00/bio",
        "chem/%20../bio",
        "chem/..%20/bio",
        "chem/..%09/bio",
        "chem/..%3f/bio",
        "chem/..%23/bio",
        "chem/%c0%ae%c0%ae/bio",
        "chem/%e0%80%ae%e0%80%ae/bio",
        "chem/%ef%bc%8e%ef%bc%8e/bio",
        "chem/%e2%80%a5/bio",
        "chem/%u002e%u002e/bio",
        "chem/%2",
        "chem/%zz",
        "..",
        "chem/..",
    ],
)
def test_webhook_path_that_a_server_may_read_as_another_is_refused(path: str) -> None:
    assert not is_taken("webhook", {"url": f"https://h.example/{path}"}, None)


@pytest.mark.parametrize("host", ["[::1].h.example", "[::1]h.example:80", "[", "h.example]", "[h.example]"])
def test_a_host_that_is_not_wholly_an_address_is_refused(host: str) -> None:
    assert not is_taken("webhook", {"url": f"https://{host}/jobs"}, None)
    assert is_taken("webhook", {"url": "https://[::1]:8080/jobs"}, None)


@pytest.mark.parametrize(
    "path",
    [
        "chem/...",
        "chem/..a/b..",
        "chem/a..b",
        "chem/.well-known/x",
        "chem;v=1/x",
        "chem/%20x%2fy",
        "chem/%25",
        "chem/100%25",
        "chem/a%5cb",
        "chem/caf%C3%A9",
        "?up=../x",
    ],
)
def test_webhook_path_with_harmless_dots_or_escapes_is_accepted(path: str) -> None:
    assert is_taken("webhook", {"url": f"https://h.example/{path}"}, None)


@pytest.mark.parametrize("url", ["https://h.example/a b", "https://h.example/?a b", "https://h.example/a "])
def test_a_url_that_could_never_be_called_is_refused_at_once(url: str) -> None:
    assert not is_taken("webhook", {"url": url}, None)
    assert is_taken("webhook", {"url": url.replace(" ", "%20")}, None)


@pytest.mark.parametrize("url", ["https://h.example/a\tb", "https://h.example/a\x7fb", "https://h.example\n"])
def test_a_url_with_control_characters_is_refused(url: str) -> None:
    assert not is_taken("webhook", {"url": url}, None)


def is_taken(method: str, params: dict[str, Any], settings: Any) -> bool:
    try:
        SENDERS[method].Params.model_validate(params, context={"settings": settings})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("channel", ["email", "gmail", "webhook", "apprise"], indirect=True)
def test_a_list_that_was_tightened_counts_for_what_is_due_already(channel: Channel, outbox: Outbox) -> None:
    tightened: dict[str, Any] = {
        "email": {"NOTIFICATIONS_MAIL_ALLOWED": ("example.org",)},
        "gmail": {"NOTIFICATIONS_MAIL_ALLOWED": ("example.org",)},
        "webhook": {"NOTIFICATIONS_WEBHOOK_RECEIVERS": {"other.example": SecretStr("c2VjcmV0" * 4)}},
        "apprise": {"NOTIFICATIONS_APPRISE_TARGETS": {"other": SecretStr("json://other.example")}},
    }
    delivery = outbox.delivery_of_another_process(**tightened[channel.method])
    refused = outbox.deliver(delivery=delivery)
    assert refused.status is NotificationStatus.DEAD
    assert str(refused.last_error).startswith("its parameters are no longer valid: ")
    assert_readable(refused.last_error, channel)
    assert channel.received() == []


# --- gmail ----------------------------------------------------------------------------------------


def test_a_service_account_asks_in_the_name_of_the_sender(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate(gmail.params()))
    assert gmail.gmail.subjects == ["cluster@example.com"]
    assert gmail.received() == ["key-1"]


@pytest.fixture
def authorised_user(gmail: GmailChannel, tmp_path: Path) -> Sender:
    gmail.gmail.write_authorised_user(tmp_path / "user.json")
    return gmail.configured(NOTIFICATIONS_GMAIL_CREDENTIALS_PATH=tmp_path / "user.json")[1]


def test_an_authorised_user_sends_too(gmail: GmailChannel, authorised_user: Sender) -> None:
    params = authorised_user.Params.model_validate(gmail.params())
    authorised_user.send(Message("key-1", "end", CONTENT), params)
    assert gmail.gmail.subjects == []
    assert gmail.received() == ["key-1"]


@pytest.mark.parametrize("kind", ["service account", "authorised user"])
def test_access_that_was_taken_away_is_the_operators_to_mend(
    gmail: GmailChannel, authorised_user: Sender, kind: str
) -> None:
    sender = authorised_user if kind == "authorised user" else gmail.configured()[1]
    gmail.gmail.is_revoked = True
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)
    assert "Google grants no access for cluster@example.com: " in str(failure)
    assert "invalid_grant: Token has been expired or revoked." in str(failure)
    assert not any(secret in str(failure) for secret in gmail.secrets)


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        (google_error(403, "Rate Limit Exceeded", "rateLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "User Rate Limit Exceeded", "userRateLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "Daily Limit Exceeded", "dailyLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "API not enabled", "accessNotConfigured", "", "usageLimits"), False),
        (google_error(403, "Insufficient Permission", "insufficientPermissions", ""), False),
        (google_error(403, "Delegation denied", "forbidden", "PERMISSION_DENIED"), True),
        (google_error(400, "Precondition check failed.", "failedPrecondition", "FAILED_PRECONDITION"), True),
        (google_error(500, "Backend Error", "backendError", "INTERNAL"), False),
        (Answer(503, b"<html>unavailable</html>", {"Content-Type": "text/html"}), False),
        (Answer(200, b"<html>a portal</html>", {"Content-Type": "text/html"}), False),
        (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), False),
    ],
)
def test_googles_refusals_are_final_or_retried(gmail: GmailChannel, answer: Answer, permanent: bool) -> None:
    _, sender = gmail.configured()
    gmail.gmail.answers += [gmail.token(), answer]
    failure = failure_of(sender, gmail.params())
    assert failure.permanent is permanent
    assert_readable(str(failure), gmail)
    assert gmail.received() == []


def test_a_sender_who_is_no_user_of_the_domain_is_final(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    words = {"error": "invalid_grant", "error_description": "Invalid email or User ID"}
    gmail.gmail.answers.append(json_answer(words, 400))
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (True, False)


def test_a_token_that_google_refuses_is_the_operators_to_mend(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    refused = google_error(401, "Invalid Credentials", "authError", "UNAUTHENTICATED")
    gmail.gmail.answers += [gmail.token(), refused] * 3
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_token_endpoint_that_is_unwell_is_tried_again(gmail: GmailChannel, status: int) -> None:
    _, sender = gmail.configured()
    gmail.gmail.answers += [Answer(status, b"<html>unwell</html>")] * 5
    failure = failure_of(sender, gmail.params())
    assert not failure.permanent
    assert_readable(str(failure), gmail)


# --- slack ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        (json_answer({"ok": False, "error": "token_revoked"}), False),
        (json_answer({"ok": False, "error": "invalid_auth"}), False),
        (json_answer({"ok": False, "error": "missing_scope"}), False),
        (json_answer({"ok": False, "error": "msg_too_long"}), True),
        (json_answer({"ok": False, "error": "is_archived"}), True),
        (json_answer({"ok": False, "error": "not_in_channel"}), True),
        (json_answer({"ok": False, "error": "internal_error"}), False),
        (json_answer({"ok": False, "error": "service_unavailable"}, 503), False),
        (json_answer({"ok": False, "error": "ratelimited"}, 429, Retry_After="7"), False),
        (Answer(500, b"<html>unwell</html>", {"Content-Type": "text/html"}), False),
        (Answer(503), False),
        (Answer(200, b"<html>a portal</html>", {"Content-Type": "text/html"}), False),
        (Answer(200), False),
    ],
)
def test_slacks_refusals_are_final_or_retried(slack: SlackChannel, answer: Answer, permanent: bool) -> None:
    _, sender = slack.configured()
    slack.slack.answers.append(answer)
    failure = failure_of(sender, slack.params())
    assert failure.permanent is permanent
    assert_readable(str(failure), slack)
    assert slack.received() == []


def test_a_wrong_token_is_the_operators_to_mend(slack: SlackChannel) -> None:
    _, sender = slack.configured(NOTIFICATIONS_SLACK_BOT_TOKEN="xoxb-another-secret")
    failure = failure_of(sender, slack.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)
    assert str(failure) == "Slack refuses the message to #jobs: invalid_auth"


def test_a_revoked_token_is_the_operators_to_mend(slack: SlackChannel) -> None:
    _, sender = slack.configured()
    slack.slack.is_revoked = True
    failure = failure_of(sender, slack.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)
    assert str(failure) == "Slack refuses the message to #jobs: token_revoked"


def test_the_servers_channel_stands_in_for_the_callers(slack: SlackChannel) -> None:
    _, sender = slack.configured()
    context = {"settings": read_settings({"NOTIFICATIONS_SLACK_CHANNEL": "#jobs"})}
    sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate({}, context=context))
    assert slack.received() == ["key-1"]
    failure = failure_of(sender, {})
    assert failure.permanent
    assert_readable(str(failure), slack)


# --- webhook --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (401, False),
        (403, False),
        (407, False),
        (404, True),
        (413, True),
        (410, True),
        (408, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_the_answer_of_a_receiver_decides_whether_to_retry(
    webhook: WebhookChannel, status: int, permanent: bool
) -> None:
    _, sender = webhook.configured()
    webhook.receiver.answers.append(Answer(status))
    failure = failure_of(sender, webhook.params())
    assert failure.permanent is permanent
    assert str(failure) == f"the receiver at 127.0.0.1:{webhook.port} answered {status}"


def test_a_wrong_signature_is_noticed(webhook: WebhookChannel) -> None:
    other = {f"127.0.0.1:{webhook.port}": WebhookChannel(Path()).receiver.secret}
    _, sender = webhook.configured(NOTIFICATIONS_WEBHOOK_RECEIVERS=other)
    assert str(failure_of(sender, webhook.params())).endswith("answered 401")
    assert webhook.received() == []


def test_a_time_to_come_back_may_be_a_date(webhook: WebhookChannel, tmp_path: Path) -> None:
    webhook.busy(formatdate(time.time() + 60, usegmt=True))
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert first.status is NotificationStatus.RETRYING
    assert first.attempt_after is not None
    assert 50 * SECOND < first.attempt_after - NOW <= 60 * SECOND


@pytest.mark.parametrize(
    "nonsense", ["soon", "-7", "7.5", "", "²", "Mon, 99 Foo 2026", "Fri, 31 Dec 99999 23:59:59 GMT"]
)
def test_a_time_to_come_back_that_is_none_counts_as_unsaid(
    webhook: WebhookChannel, tmp_path: Path, nonsense: str
) -> None:
    webhook.busy(nonsense)
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert (first.status, first.attempt_after) == (NotificationStatus.RETRYING, NOW + 5 * SECOND)
    assert str(first.last_error).endswith("answered 429")


@pytest.mark.parametrize("much", ["99999999999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_very_long_requested_delay_is_limited_to_an_hour(
    webhook: WebhookChannel, tmp_path: Path, much: str
) -> None:
    webhook.busy(much)
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert (first.status, first.attempt_after) == (NotificationStatus.RETRYING, NOW + timedelta(hours=1))
    assert str(first.last_error).endswith("answered 429")


def test_a_redirect_is_not_followed(webhook: WebhookChannel) -> None:
    with HttpService() as elsewhere:
        _, sender = webhook.configured()
        for status in (301, 302, 307, 308):
            webhook.receiver.answers.append(Answer(status, headers={"Location": f"{elsewhere.url}/"}))
            failure = failure_of(sender, webhook.params())
            assert str(failure).endswith(f"answered {status}")
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://hooks.example.com/x", True),
        ("HTTPS://HOOKS.Example.COM/x", True),
        ("http://hooks.example.com:8443/x?y=z", True),
        ("https://hooks.example.com:444/x", False),
        ("https://hooks.example.com.example.net/", False),
        ("https://example.com/", False),
        ("https://other.example.net/", False),
        ("https://hooks.example.com@example.net/", False),
        ("https://user:word@hooks.example.com/", False),
        ("https://example.net\\@hooks.example.com/", False),
        ("https://example.net/@hooks.example.com/", False),
        ("https://example.net#@hooks.example.com/", False),
        ("https://example.net?hooks.example.com", False),
        ("https://hooks.example.com\\.example.net/", False),
        ("https://hooks.example.com:99999/", False),
        ("ftp://hooks.example.com/", False),
        ("file:///etc/passwd", False),
        ("hooks.example.com", False),
        ("https://hooks.example.com\n.example.net/", False),
    ],
)
def test_webhooks_reach_only_whom_the_operator_lists(url: str, is_allowed: bool) -> None:
    secret = WebhookChannel(Path()).receiver.secret
    receivers = {"Hooks.example.com": secret, "hooks.example.com:8443": secret}
    settings = read_settings({"NOTIFICATIONS_WEBHOOK_RECEIVERS": receivers})
    assert is_taken("webhook", {"url": url}, settings) is is_allowed
    others = read_settings({"NOTIFICATIONS_WEBHOOK_RECEIVERS": {"another.example.com": secret}})
    assert not is_taken("webhook", {"url": url}, others)


def test_a_host_in_capitals_is_the_same_host(webhook: WebhookChannel) -> None:
    receivers = {f"LocalHost:{webhook.port}": webhook.receiver.secret}
    _, sender = webhook.configured(NOTIFICATIONS_WEBHOOK_RECEIVERS=receivers)
    params = sender.Params.model_validate({"url": f"HTTP://LOCALHOST:{webhook.port}/"})
    sender.send(Message("key-1", "end", CONTENT), params)
    assert webhook.received() == ["key-1"]


# --- apprise --------------------------------------------------------------------------------------


def test_a_target_is_one_that_the_operator_named() -> None:
    settings = read_settings({"NOTIFICATIONS_APPRISE_TARGETS": {"team": "json://127.0.0.1/"}})
    assert is_taken("apprise", {"target": "team"}, settings)
    for other in ("Team", "others", "json://127.0.0.1/", ""):
        assert not is_taken("apprise", {"target": other}, settings)


def test_a_target_that_apprise_does_not_know_is_the_operators_to_mend(apprise: AppriseChannel) -> None:
    targets = {"team": "nonsense://the-secret-of-the-url"}
    _, sender = apprise.configured(NOTIFICATIONS_APPRISE_TARGETS=targets)
    failure = failure_of(sender, apprise.params())
    assert not failure.permanent
    assert_readable(str(failure), apprise)


# --- rabbitmq -------------------------------------------------------------------------------------


def send(channel: Channel, params: dict[str, Any], **settings: Any) -> None:
    _, sender = channel.configured(**settings)
    sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate(params))


@pytest.mark.real
def test_a_confirmed_message_counts_as_sent_even_if_the_connection_breaks(
    queue: RabbitmqChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*arguments: object) -> None:
        raise ConnectionClosedByBroker(320, "CONNECTION_FORCED - broker forced connection closure")

    with monkeypatch.context() as shut_down:
        shut_down.setattr("pika.adapters.blocking_connection.BlockingChannel.close", ended)
        _, sender = queue.configured()
        sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate(queue.params()))
    sender.close_idle()
    assert queue.received() == ["key-1"]


@pytest.mark.real
def test_rabbitmq_by_tls(queue: RabbitmqChannel) -> None:
    tls = {"NOTIFICATIONS_RABBITMQ_TLS": True, "NOTIFICATIONS_RABBITMQ_PORT": queue.broker.tls_port}
    send(queue, queue.params(), **tls, NOTIFICATIONS_RABBITMQ_CA_PATH=queue.broker.ca_path)
    assert queue.received() == ["key-1"]


@pytest.mark.real
def test_a_broker_with_an_unknown_certificate_authority_is_not_trusted(queue: RabbitmqChannel) -> None:
    tls = {"NOTIFICATIONS_RABBITMQ_TLS": True, "NOTIFICATIONS_RABBITMQ_PORT": queue.broker.tls_port}
    _, sender = queue.configured(**tls)
    failure = failure_of(sender, queue.params())
    assert not failure.permanent
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert f"RabbitMQ at 127.0.0.1:{queue.broker.tls_port} cannot be used" in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_wrong_password_for_the_broker_is_the_operators_to_mend(queue: RabbitmqChannel) -> None:
    _, sender = queue.configured(NOTIFICATIONS_RABBITMQ_PASSWORD="another secret")
    failure = failure_of(sender, queue.params())
    assert not failure.permanent
    assert "ACCESS_REFUSED" in str(failure)
    assert "another secret" not in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_virtual_host_that_is_not_there_is_the_operators_to_mend(queue: RabbitmqChannel) -> None:
    _, sender = queue.configured(NOTIFICATIONS_RABBITMQ_PATH="/elsewhere")
    failure = failure_of(sender, queue.params())
    assert not failure.permanent
    assert "/elsewhere" in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_queue_that_is_not_there_is_made_to_last(queue: RabbitmqChannel) -> None:
    send(queue, queue.params())
    with queue.broker.connect() as connection:
        connection.channel().queue_declare(queue.queue, durable=True)  # refused if it is another kind
    assert queue.received() == ["key-1"]


@pytest.mark.real
@pytest.mark.parametrize("passive", [False, True])
def test_a_queue_that_is_there_is_used_as_it_is(queue: RabbitmqChannel, passive: bool) -> None:
    with queue.broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare(queue.queue, durable=False, auto_delete=True, arguments={"x-max-length": 5})
        send(queue, {"queue": queue.queue, "passive": passive})
        assert channel.basic_get(queue.queue, auto_ack=True)[1].message_id == "key-1"
        channel.queue_delete(queue.queue)


@pytest.mark.real
def test_a_queue_is_bound_to_the_exchange_that_is_named_with_it(queue: RabbitmqChannel) -> None:
    exchange = f"exchange-{new_uuid()}"
    with queue.broker.connect() as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=True)
        send(queue, {"queue": queue.queue, "exchange": exchange, "routing_key": "jobs.ended"})
        send(queue, {"exchange": exchange, "routing_key": "jobs.ended"})
        channel.exchange_delete(exchange)
    assert queue.received() == ["key-1", "key-1"]


@pytest.mark.real
def test_a_message_without_a_queue_is_dead(queue: RabbitmqChannel) -> None:
    exchange = f"exchange-{new_uuid()}"
    _, sender = queue.configured()
    with queue.broker.connect() as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "direct")
        failure = failure_of(sender, {"exchange": exchange, "routing_key": "nobody's"})
        channel.exchange_delete(exchange)
    assert failure.permanent
    assert str(failure) == "RabbitMQ has no queue that receives the message"


@pytest.mark.real
@pytest.mark.parametrize("has_queue", [False, True])
def test_an_exchange_that_is_not_there_is_final(queue: RabbitmqChannel, has_queue: bool) -> None:
    _, sender = queue.configured()
    params = {
        "exchange": "no-such-exchange",
        "routing_key": "x",
        **({"queue": queue.queue} if has_queue else {}),
    }
    failure = failure_of(sender, params)
    assert failure.permanent
    assert "no-such-exchange" in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_message_without_confirmation_counts_as_not_sent(queue: RabbitmqChannel) -> None:
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with queue.broker.connect() as connection:
        channel = connection.channel()
        channel.queue_declare(queue.queue, durable=True, arguments=full)
        send(queue, queue.params())
        failure = failure_of(queue.configured()[1], queue.params())
        channel.queue_delete(queue.queue)
    assert not failure.permanent
    assert str(failure) == "RabbitMQ could not store the message"


@pytest.mark.real
def test_a_broker_without_memory_fails_in_time(queue: RabbitmqChannel) -> None:
    """Out of memory it lets publishers connect, and blocks them."""
    send(queue, queue.params())
    queue.broker.control("set_vm_memory_high_watermark", "0.000001")
    try:
        _, sender = queue.configured()
        failure = in_time(lambda: failure_of(sender, queue.params()), 15)
    finally:
        queue.broker.control("set_vm_memory_high_watermark", "0.9")
    assert not failure.permanent
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_message_outlives_the_broker_that_confirmed_it(queue: RabbitmqChannel) -> None:
    send(queue, queue.params())
    queue.stop()
    queue.start()
    assert queue.received() == ["key-1"]
