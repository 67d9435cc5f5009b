"""The channels by which people and programs are told: one file each, and the dict that lists them."""

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

__all__ = ["SENDERS", "Message", "Sender"]
