"""What every sender is: a model of its parameters, a way to be configured, and one method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel

from app.constants import Settings


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one channel. `id` is the same at every attempt; receivers deduplicate by it."""

    id: str
    params: Mapping[str, Any]
    subject: str
    text: str


class Sender(Protocol):
    """One channel. Thread-safe: several threads may send at once."""

    Params: ClassVar[type[BaseModel]]  # what `task.notification.params.<method>` must hold

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        """The sender, or None where the settings do not name what it needs."""

    def send(self, message: Message) -> None:
        """Returns once the receiver has taken the message; otherwise DeliveryFailed."""
