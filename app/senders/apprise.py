"""The method `apprise`: Teams, Discord, Telegram, Matrix, ntfy and more, by operator-named targets."""

import logging
from typing import Annotated, ClassVar, Self

from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.rules import Line, ShellText
from app.senders.base import Message, Sender, settings_of


def _named(target: str, info: ValidationInfo) -> str:
    """Where there is no target at all, the method is not configured, which is no fault of the name."""
    settings = settings_of(info)
    targets = settings.NOTIFICATIONS_APPRISE_TARGETS if settings else {}
    if targets and target not in targets:
        words = "must be one of " + ", ".join(targets)
        raise PydanticCustomError("rule", "{words}", {"words": words})
    return target


class AppriseParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: Annotated[Line, AfterValidator(_named)]
    subject: Line | None = None
    body: ShellText | None = None


class AppriseSender(Sender):
    Params: ClassVar[type[AppriseParams]] = AppriseParams
    for_people = True

    def __init__(self, settings: Settings) -> None:
        self._targets = settings.NOTIFICATIONS_APPRISE_TARGETS
        # The library writes addresses, which hold secrets, and bodies to its log.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        return cls(settings) if settings.NOTIFICATIONS_APPRISE_TARGETS else None

    @staticmethod
    def receiver(params: AppriseParams) -> str:
        return params.target

    def send(self, message: Message, params: AppriseParams) -> None:
        """The library does not tell why a message was not taken: it is tried again."""
        service = Apprise(asset=AppriseAsset(app_id="slurm-proxy", async_mode=False))
        if not service.add(self._targets[params.target].get_secret_value()):
            words = f"the target {params.target} is not an address that Apprise knows"
            raise DeliveryFailed(words, permanent=False)
        taken = service.notify(
            title=message.subject,
            body=message.text,
            notify_type=NotifyType.FAILURE if message.content.is_bad_news else NotifyType.INFO,
            body_format=NotifyFormat.TEXT,
        )
        if not taken:
            raise DeliveryFailed(f"the target {params.target} did not take the message", permanent=False)
