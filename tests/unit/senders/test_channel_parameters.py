"""Only a channel knows the names of its parameters: address, own text and subject, recipients.

A channel that is added to SENDERS takes part by itself, apart from an example of its parameters here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import pytest
from pydantic import BaseModel, ConfigDict

from app.constants import Settings
from app.environment import read_settings
from app.job_state import JobState
from app.lifecycle.responses import describe_notification
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.senders import SENDERS, Message, Sender, find_channel
from tests.support.tasks import make_task

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# Parameters of each channel without subject and text, and the address that callers read.
EXAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "email": ({"sender": "cluster@example.com", "recipient": "ann@example.com"}, "ann@example.com"),
    "gmail": ({"sender": "cluster@example.com", "recipient": ["bob@example.com"]}, "bob@example.com"),
    "slack": ({"channel": "#jobs"}, "#jobs"),
    "rabbitmq": ({"queue": "jobs", "exchange": "events", "passive": True}, "events, jobs"),
    "webhook": ({"url": "https://example.com/hook"}, "https://example.com/hook"),
    "apprise": ({"target": "team"}, "team"),
    "test": ({"channel": "#jobs", "queue": "jobs"}, "#jobs, jobs"),
}


class TopicParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: str
    title: str = ""
    text: str = ""


class TopicSender(Sender):
    """A channel whose parameters have names that no other channel has."""

    Params: ClassVar[type[TopicParams]] = TopicParams

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls()

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        return str(params.get("topic") or "")

    @staticmethod
    def own_subject(params: Mapping[str, Any]) -> str:
        return str(params.get("title") or "")

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        return str(params.get("text") or "")

    def send(self, message: Message, params: TopicParams) -> None:
        """Take every message."""


@pytest.fixture(autouse=True)
def _topic_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new channel is one line in SENDERS."""
    monkeypatch.setitem(SENDERS, "topic", TopicSender)
    monkeypatch.setitem(EXAMPLES, "topic", ({"topic": "jobs"}, "jobs"))


METHODS = [*SENDERS, "topic"]


def names_of_text(method: str) -> tuple[str, str]:
    """The parameters that hold the caller's own subject and text."""
    channel = SENDERS[method]
    names = [*channel.Params.model_fields, "subject", "body"]
    subject = next(name for name in names if channel.own_subject({name: "own"}) == "own")
    return subject, next(name for name in names if channel.own_text({name: "own"}) == "own")


def announced(method: str, **words: str) -> Notification:
    """The notification of a job that has ended."""
    params, _ = EXAMPLES[method]
    notification = {"methods": [method], "params": {method: {**params, **words}}}
    record = TaskRecord(
        task=make_task("ann", notification=notification), slurm_username="ann", created_at=NOW, updated_at=NOW
    )
    job = SlurmJob(job_id=4711, username="ann", job_state=JobState.COMPLETED)
    (item,) = Planner({}, [method], find_channel).plan_events(record, job, NOW).notifications
    return item


@pytest.mark.parametrize("method", METHODS)
def test_address_of_every_channel_is_shown(method: str) -> None:
    assert describe_notification(announced(method)).to == EXAMPLES[method][1]


@pytest.mark.parametrize("method", METHODS)
def test_own_subject_and_text_of_every_channel_are_in_the_message(method: str) -> None:
    subject, text = names_of_text(method)
    shown = describe_notification(
        announced(method, **{subject: "own ${name}", text: "my text, job ${slurm_job_id}"})
    )
    assert shown.subject.startswith("own ")
    assert "my text, job 4711" in shown.text


@pytest.mark.parametrize("method", METHODS)
def test_text_parameters_are_distinguished_from_the_others(method: str) -> None:
    """Messages that differ in their text only may share a digest."""
    channel, (params, _) = SENDERS[method], EXAMPLES[method]
    if channel.Params.model_fields:
        assert channel.text_params() == set(names_of_text(method))
    assert channel.text_params().isdisjoint(params)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_the_address_are_enough_to_show_it(method: str) -> None:
    """A message that was too large to be stored keeps them alone."""
    channel, params = SENDERS[method], announced(method).params
    kept = channel.address_params({**params, **dict.fromkeys(names_of_text(method), "own")})
    assert channel.address(kept) == EXAMPLES[method][1]
    assert set(kept) <= set(params)


@pytest.mark.parametrize("method", METHODS)
def test_example_is_accepted_with_subject_and_text(method: str) -> None:
    channel, (params, _) = SENDERS[method], EXAMPLES[method]
    parsed = channel.Params.model_validate({**params, **dict.fromkeys(names_of_text(method), "own")})
    assert all(receiver.text for receiver in channel.receivers(parsed)) or method == "test"


@pytest.mark.parametrize("method", METHODS)
def test_odd_stored_parameters_of_every_channel_raise_nothing(method: str) -> None:
    channel = SENDERS[method]
    for value in (None, 1, "", [], {}, [1], {"a": 1}):
        params = dict.fromkeys([*channel.Params.model_fields, "recipient", "subject", "body"], value)
        texts = (channel.address(params), channel.own_subject(params), channel.own_text(params))
        assert all(isinstance(text, str) for text in texts)
        assert isinstance(channel.split_recipients(params), dict)


@pytest.mark.parametrize("method", ["email", "gmail", "test"])
def test_recipients_of_mail_have_a_message_each(method: str) -> None:
    params = {"sender": "a@example.com", "recipient": ["b@example.com", "c@example.com", "b@example.com"]}
    assert SENDERS[method].split_recipients(params) == {
        "b@example.com": {**params, "recipient": "b@example.com"},
        "c@example.com": {**params, "recipient": "c@example.com"},
    }


def test_notification_by_a_method_that_no_longer_exists_shows_its_address() -> None:
    item = Notification(
        id="1",
        event="end",
        method="pager",
        params={"recipient": "ann", "url": "http://pager"},
        status=NotificationStatus.DEAD,
        created_at=NOW,
    )
    assert describe_notification(item).to == "ann, http://pager"


def test_settings_of_every_channel_begin_with_its_prefix() -> None:
    known = Settings.model_fields
    for method in set(SENDERS) - {"test", "topic"}:
        prefix = find_channel(method).settings_prefix or f"NOTIFICATIONS_{method.upper()}_"
        assert any(name.startswith(prefix) for name in known), prefix
    assert read_settings({}).NOTIFICATIONS_SMTP_SERVER is None
