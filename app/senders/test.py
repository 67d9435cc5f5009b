"""The method `test`: writes one line to the log, for trying things out."""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from app.constants import Settings
from app.senders.base import Message, Sender, split_recipient_list, text_param

logger = logging.getLogger(__name__)

# Parameters that other channels use, so that a task can be tried out with the ones that it will have.
_ADDRESS_PARAMS = ("recipient", "channel", "url", "target", "exchange", "routing_key", "queue")


class TestParams(BaseModel):
    """The parameters: all are allowed, and none is required."""

    model_config = ConfigDict(extra="allow")


class TestSender(Sender):
    """A channel that accepts the parameters of every other channel, and sends nothing."""

    Params: ClassVar[type[TestParams]] = TestParams

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the sender, which is always configured."""
        return cls()

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the addresses that other channels would show, separated by commas."""
        return ", ".join(str(params[name]) for name in _ADDRESS_PARAMS if params.get(name))

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the body, or the message of Slack."""
        return text_param(params, "body" if params.get("body") else "msg")

    @classmethod
    def split_recipients(cls, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the parameters for each recipient, as mail does."""
        return split_recipient_list(params, "recipient")

    @classmethod
    def receiver_key(cls, params: TestParams) -> str:
        """Return one name for all, because the log is the only receiver."""
        return ""

    def send(self, message: Message, params: TestParams) -> None:
        """Log the id of the message only, because its content is for its receiver."""
        logger.info("test notification %s was sent", message.id)
