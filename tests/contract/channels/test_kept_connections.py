"""Connections that channels keep from one message to the next."""

from pathlib import Path

import pytest

from app.models.record import NotificationStatus
from app.senders import Message
from tests.conftest import until
from tests.support.channels import (
    Channel,
    RabbitmqChannel,
)
from tests.support.outbox import CONTENT, NOW, Outbox, failure_of
from tests.support.real.network import Network

pytestmark = pytest.mark.timed


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
