"""The check of a channel's login, and a test message."""

from typing import Any

import pytest

from app.errors import DeliveryFailed
from app.models.content import Content
from app.senders import Message
from tests.support.channels import (
    Channel,
    GmailChannel,
    RabbitmqChannel,
)
from tests.support.real.processes import free_port

pytestmark = pytest.mark.timed

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
