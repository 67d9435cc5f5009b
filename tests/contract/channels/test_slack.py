"""Slack: its answers, and the channel of the server."""

import pytest

from app.environment import read_settings
from app.senders import Message
from tests.support.channels import (
    SlackChannel,
)
from tests.support.outbox import CONTENT, assert_readable, failure_of
from tests.support.real.http_services import Answer, json_answer

pytestmark = pytest.mark.timed


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


def test_a_wrong_token_is_retried_as_a_fault_of_the_channel(slack: SlackChannel) -> None:
    _, sender = slack.configured(NOTIFICATIONS_SLACK_BOT_TOKEN="xoxb-another-secret")
    failure = failure_of(sender, slack.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)
    assert str(failure) == "Slack refuses the message to #jobs: invalid_auth"


def test_a_revoked_token_is_retried_as_a_fault_of_the_channel(slack: SlackChannel) -> None:
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
