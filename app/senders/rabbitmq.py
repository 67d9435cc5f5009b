"""The method `rabbitmq`: publishes the event as persistent JSON, and waits for the broker's confirmation."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Self

from pika import (
    BasicProperties,
    BlockingConnection,
    ConnectionParameters,
    PlainCredentials,
    SSLOptions,
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.record import utc_now
from app.senders.amqp_connection import (
    LimitedConnection,
    close_amqp,
    find_amqp_cause,
    is_amqp_alive,
    watch_amqp,
)
from app.senders.authorities import read_authorities
from app.senders.base import Message, Receiver, Sender, make_unusable_server_error, text_param
from app.senders.deadline import Deadline
from app.senders.kept_connection import KeptConnection
from app.senders.rabbitmq_params import RabbitmqParams

_NOT_FOUND = 404
_PERSISTENT = 2
_ADDRESS_PARAMS = ("exchange", "routing_key", "queue")


class RabbitmqSender(Sender):
    """A channel to the exchanges and queues of one virtual host."""

    Params: ClassVar[type[RabbitmqParams]] = RabbitmqParams

    def __init__(self, settings: Settings, host: str) -> None:
        """Create the channel; nothing connects yet.

        Raises:
            SettingsError: The file of the certificate authority cannot be used.
        """
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # the errors say enough
        timeout = settings.NOTIFICATIONS_RABBITMQ_TIMEOUT_SECONDS
        password = settings.NOTIFICATIONS_RABBITMQ_PASSWORD
        login = PlainCredentials(
            settings.NOTIFICATIONS_RABBITMQ_USERNAME, password.get_secret_value() if password else ""
        )
        tls = None
        if settings.NOTIFICATIONS_RABBITMQ_TLS:
            ca_path = settings.NOTIFICATIONS_RABBITMQ_CA_PATH
            tls = SSLOptions(read_authorities("NOTIFICATIONS_RABBITMQ_CA_PATH", ca_path), host)
        self._parameters = ConnectionParameters(
            host=host,
            port=settings.rabbitmq_port(),
            virtual_host=settings.NOTIFICATIONS_RABBITMQ_PATH,
            credentials=login,
            ssl_options=tls,
            socket_timeout=timeout,
            stack_timeout=timeout,  # for the whole handshake
            blocked_connection_timeout=timeout,
            heartbeat=max(2, int(timeout)),  # ends the wait for a broker that has fallen silent
        )

        self._kept = KeptConnection(self._connect, watch_amqp, is_amqp_alive, close_amqp, 2 * timeout)

    def _connect(self, deadline: Deadline) -> BlockingConnection:
        connection = BlockingConnection(self._parameters, _impl_class=LimitedConnection)
        watch_amqp(connection, deadline)
        return connection

    def close_idle(self) -> None:
        """Close the idle connection to the broker."""
        self._kept.close_idle()

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return exchange, routing key and queue, separated by commas; absent ones are left out."""
        return ", ".join(str(params[name]) for name in _ADDRESS_PARAMS if params.get(name))

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the body; empty unless the body is text."""
        return text_param(params, "body")

    @classmethod
    def receiver_key(cls, params: RabbitmqParams) -> str:
        """Return exchange and key; and the queue, if its name is not the key."""
        key = params.routing_key or params.queue or ""
        return f"{params.exchange} {key}" + (f" {params.queue}" if params.queue not in (None, key) else "")

    @classmethod
    def receivers(cls, params: RabbitmqParams) -> list[Receiver]:
        """Return exchange and key; and the queue, if another one is declared and bound."""
        key = params.routing_key or params.queue or ""
        parts: tuple[str, ...] = (params.exchange, key)
        if params.queue is not None and (params.exchange or params.queue != key):
            parts = (*parts, params.queue)
        return [Receiver(" ".join(parts), parts)]

    @staticmethod
    def split_pattern(pattern: str) -> tuple[str, ...]:
        """Return exchange and key, and the queue if the pattern has one.

        Raises:
            ValueError: The pattern has not two or three parts.
        """
        parts = tuple(pattern.split(" "))
        if len(parts) not in (2, 3):
            raise ValueError("must be exchange, key and possibly queue, with one blank between them")
        return parts

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no broker is set."""
        host = settings.NOTIFICATIONS_RABBITMQ_HOST
        return cls(settings, host) if host else None

    def send(self, message: Message, params: RabbitmqParams) -> None:
        """Publish one message, and wait for the broker's confirmation.

        Raises:
            DeliveryFailed: The message was not accepted. This is final if no queue receives it, or if the
                broker refuses the exchange or queue that the caller named.
        """
        body = json.dumps({**message.as_event(), "body": params.body}).encode()
        try:
            with self._kept.connection() as connection:
                channel = _open_channel(connection, params)
                channel.confirm_delivery()
                channel.basic_publish(
                    params.exchange,
                    params.routing_key or params.queue or "",
                    body,
                    _build_properties(message),
                    mandatory=True,
                )
                with suppress(AMQPError, OSError):  # the broker has the message: it must not be sent again
                    channel.close()
        except UnroutableError as error:
            raise DeliveryFailed("RabbitMQ has no queue that receives the message", permanent=True) from error
        except ChannelClosedByBroker as error:
            words = f"RabbitMQ refuses the message: {error.reply_code} {error.reply_text}"
            raise DeliveryFailed(words, permanent=error.reply_code < 500) from error
        except NackError as error:
            raise DeliveryFailed("RabbitMQ could not store the message", permanent=False) from error
        except (AMQPError, AMQPConnectorException, OSError) as error:
            raise self._unusable(error) from error

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test message to a queue that is there already."""
        return {"queue": receiver, "passive": True}

    def check_login(self) -> bool:
        """Log in to the virtual host.

        Raises:
            DeliveryFailed: The broker cannot be reached, or refuses the login.
        """
        try:
            with self._kept.connection():
                return True
        except (AMQPError, AMQPConnectorException, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DeliveryFailed:
        host, port = self._parameters.host, self._parameters.port
        return make_unusable_server_error("RabbitMQ", host, port, find_amqp_cause(error))


def _open_channel(connection: BlockingConnection, params: RabbitmqParams) -> BlockingChannel:
    """Return an open AMQP channel, with the queue declared and bound to the exchange if need be."""
    channel = connection.channel()
    if params.queue is None:
        return channel
    try:
        channel.queue_declare(params.queue, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != _NOT_FOUND or params.passive:
            raise
        channel = connection.channel()
        channel.queue_declare(params.queue, durable=True)
    if params.exchange and not params.passive:
        channel.queue_bind(params.queue, params.exchange, params.routing_key or params.queue)
    return channel


def _build_properties(message: Message) -> BasicProperties:
    return BasicProperties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        timestamp=int(utc_now().timestamp()),
        type=f"job.{message.event}",
        app_id="slurm-proxy",
    )
