"""The method `test`: writes one line to the log, for trying things out."""

import logging
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from app.constants import Settings
from app.senders.base import Message, Sender

logger = logging.getLogger(__name__)


class TestParams(BaseModel):
    """Anything goes, and nothing is needed."""

    model_config = ConfigDict(extra="allow")


class TestSender(Sender):
    Params: ClassVar[type[TestParams]] = TestParams

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls()

    def send(self, message: Message, params: TestParams) -> None:
        """Log the id of the message only, because its content is for its receiver."""
        logger.info("test notification %s went out", message.id)
