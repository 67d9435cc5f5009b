"""The promises that all channels share, each channel on its real protocol."""

import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.models.content import Content
from app.models.job_facts import JobFacts
from app.models.record import NotificationStatus
from app.senders import SENDERS
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, until
from tests.support.channels import (
    CHANNELS_IN_A_FOLDER,
    AppriseChannel,
    Channel,
    EmailChannel,
    GmailChannel,
    RabbitmqChannel,
    RateLimited,
    SlackChannel,
    as_variable,
    started,
)
from tests.support.outbox import (
    CLAIM_FOR,
    CONTENT,
    NOW,
    SECOND,
    CrashingStore,
    Killed,
    Outbox,
    assert_readable,
    failure_of,
    in_time,
)
from tests.support.real.network import Fault, Network
from tests.support.real.rabbitmq import RabbitMq
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task, new_uuid

pytestmark = pytest.mark.timed


def test_every_channel_has_a_rig() -> None:
    assert {*CHANNELS_IN_A_FOLDER, "rabbitmq"} == SENDERS.keys() - {"test"}


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
    store = CrashingStore(outbox.path)
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
    """The service is killed while it sends on all channels at once."""
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


def test_a_permanent_refusal_is_final_and_readable(channel: Channel, tmp_path: Path) -> None:
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


def test_hostile_text_is_sent_as_plain_text(channel: Channel, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("channel", ["email", "gmail", "webhook", "apprise"], indirect=True)
def test_a_stricter_list_applies_to_messages_that_are_due_already(channel: Channel, outbox: Outbox) -> None:
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
