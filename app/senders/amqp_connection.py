"""Connections to RabbitMQ, with a deadline and a size limit for the broker's answers."""

from contextlib import suppress
from typing import Any

from pika import BlockingConnection, SelectConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import AMQPConnectionError, AMQPError

from app.senders.deadline import MAX_ANSWER, Deadline


class LimitedConnection(SelectConnection):  # type: ignore[misc]
    """pika's connection, with a size limit for the broker's answers to one message."""

    bytes_left = MAX_ANSWER

    def _proto_data_received(self, data: bytes) -> None:
        self.bytes_left -= len(data)
        if self.bytes_left >= 0:
            super()._proto_data_received(data)
        elif not self.is_closed:
            self._terminate_stream(AMQPConnectionError(f"it answers with more than {MAX_ANSWER} bytes"))


def watch_amqp(connection: BlockingConnection, deadline: Deadline) -> None:
    """Apply the deadline and a new size limit to the connection, for another message.

    pika has no public access to the socket.

    Raises:
        OSError: The broker has closed the connection.
    """
    opened: Any = connection._impl
    opened.bytes_left = MAX_ANSWER
    if opened._transport is None:
        raise OSError("the broker has closed the connection")
    deadline.watch(opened._transport._sock)


def is_amqp_alive(connection: BlockingConnection) -> bool:
    """Return whether the broker has not closed the connection meanwhile."""
    try:
        connection.process_data_events(time_limit=0)
    except (AMQPError, OSError):
        return False
    return bool(connection.is_open)


def close_amqp(connection: BlockingConnection) -> None:
    """Close the connection; an error is ignored."""
    with suppress(AMQPError, OSError):
        connection.close()


def find_amqp_cause(error: Exception) -> str:
    """Return the cause of an error, which pika wraps in up to three errors without a message."""
    if isinstance(error, AMQPConnectorStackTimeout):
        return "it does not answer"
    inner = getattr(error, "exception", None) or next(iter(error.args), None)
    return find_amqp_cause(inner) if isinstance(inner, Exception) else str(error) or type(error).__name__
