"""The channels by which people and programs are told: one file each, and the dict that lists them."""

from app.senders.base import Message, Sender
from app.senders.email import EmailSender
from app.senders.test import TestSender

SENDERS: dict[str, type[Sender]] = {
    "email": EmailSender,
    "test": TestSender,
}

__all__ = ["SENDERS", "Message", "Sender"]
