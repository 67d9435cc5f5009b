"""The channels by which messages are sent: one file each, and the dict of all channels by method.

docs/how-to/add-a-channel.md shows how to add one.
"""

from app.senders.apprise import AppriseSender
from app.senders.base import Message, Sender
from app.senders.email import EmailSender
from app.senders.gmail import GmailSender
from app.senders.rabbitmq import RabbitmqSender
from app.senders.slack import SlackSender
from app.senders.test import TestSender
from app.senders.webhook import WebhookSender

SENDERS: dict[str, type[Sender]] = {
    "email": EmailSender,
    "gmail": GmailSender,
    "slack": SlackSender,
    "rabbitmq": RabbitmqSender,
    "webhook": WebhookSender,
    "apprise": AppriseSender,
    "test": TestSender,
}


def find_channel(method: str) -> type[Sender]:
    """Return the channel of that method.

    A stored notification may have a method that exists no more. TestSender, which accepts any parameters,
    then shows its address and text.
    """
    return SENDERS.get(method, TestSender)


def settings_prefix(method: str) -> str:
    """Return how the names of a channel's settings begin."""
    return find_channel(method).settings_prefix or f"NOTIFICATIONS_{method.upper()}_"


__all__ = ["SENDERS", "Message", "Sender", "find_channel", "settings_prefix"]
