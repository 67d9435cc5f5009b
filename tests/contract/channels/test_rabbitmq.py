"""RabbitMQ: names, queues, exchanges and confirmations."""

from typing import Any

import pytest
from pika.exceptions import ConnectionClosedByBroker

from app.senders import Message
from tests.support.channels import (
    Channel,
    RabbitmqChannel,
)
from tests.support.outbox import CONTENT, assert_readable, failure_of, in_time, is_accepted
from tests.support.tasks import new_uuid

pytestmark = pytest.mark.timed


@pytest.mark.parametrize("exchange", ["eve\nnts", "events\r", "eve\tnts", "events\x00", "e" * 256])
def test_exchange_name_that_the_broker_would_alter_is_refused(exchange: str) -> None:
    assert not is_accepted("rabbitmq", {"exchange": exchange, "queue": "jobs"}, None)
    assert is_accepted("rabbitmq", {"exchange": "eve nts", "queue": "jobs"}, None)


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
def test_a_wrong_password_for_the_broker_is_retried(queue: RabbitmqChannel) -> None:
    _, sender = queue.configured(NOTIFICATIONS_RABBITMQ_PASSWORD="another secret")
    failure = failure_of(sender, queue.params())
    assert not failure.permanent
    assert "ACCESS_REFUSED" in str(failure)
    assert "another secret" not in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_missing_virtual_host_is_retried(queue: RabbitmqChannel) -> None:
    _, sender = queue.configured(NOTIFICATIONS_RABBITMQ_PATH="/elsewhere")
    failure = failure_of(sender, queue.params())
    assert not failure.permanent
    assert "/elsewhere" in str(failure)
    assert_readable(str(failure), queue)


@pytest.mark.real
def test_a_missing_queue_is_created_durable(queue: RabbitmqChannel) -> None:
    send(queue, queue.params())
    with queue.broker.connect() as connection:
        connection.channel().queue_declare(queue.queue, durable=True)  # refused if it is another kind
    assert queue.received() == ["key-1"]


@pytest.mark.real
@pytest.mark.parametrize("passive", [False, True])
def test_an_existing_queue_is_used_unchanged(queue: RabbitmqChannel, passive: bool) -> None:
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
def test_a_missing_exchange_is_final(queue: RabbitmqChannel, has_queue: bool) -> None:
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
    """A broker that is out of memory accepts publishers, and blocks them."""
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
