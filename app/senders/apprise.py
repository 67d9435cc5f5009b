"""The method `apprise`: Teams, Discord, Telegram, Matrix, ntfy and more, at targets of the operator."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from app.constants import Settings
from app.errors import DeliveryFailed
from app.models.rules import Line, ShellText
from app.senders.base import Message, Sender, drop_description, settings_from_context, text_param

_PROCESS = Path(__file__).with_name("apprise_process.py")


def _require_listed_target(target: str, info: ValidationInfo) -> str:
    """Require a target that the operator lists. Without any, the method is not configured: no fault."""
    settings = settings_from_context(info)
    targets = settings.NOTIFICATIONS_APPRISE_TARGETS if settings else {}
    if targets and target not in targets:
        words = "must be one of " + ", ".join(targets)
        raise PydanticCustomError("rule", "{words}", {"words": words})
    return target


class AppriseParams(BaseModel):
    """The parameters: a target of the operator's, subject and body."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=drop_description)

    target: Annotated[Line, AfterValidator(_require_listed_target)]
    subject: Line | None = None
    body: ShellText | None = None


class AppriseSender(Sender):
    """A channel to the targets of NOTIFICATIONS_APPRISE_TARGETS."""

    Params: ClassVar[type[AppriseParams]] = AppriseParams
    rate_limited = True

    def __init__(self, settings: Settings) -> None:
        """Create the channel; nothing connects yet."""
        self._targets = settings.NOTIFICATIONS_APPRISE_TARGETS
        self._timeout = settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no target is listed."""
        return cls(settings) if settings.NOTIFICATIONS_APPRISE_TARGETS else None

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        """Return the name of the target."""
        return str(params.get("target") or "")

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        """Return the body."""
        return text_param(params, "body")

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test message to the target of that name."""
        return {"target": receiver}

    def send(self, message: Message, params: AppriseParams) -> None:
        """Send the message in a separate process.

        Raises:
            DeliveryFailed: The target did not accept the message. It is retried: Apprise gives no reason.
        """
        order = {
            "url": self._targets[params.target].get_secret_value(),
            "title": message.subject,
            "body": message.text,
            "notify_type": "failure" if message.content.is_bad_news else "info",
            "body_format": "text",
        }
        fault = {
            "taken": None,
            "unknown": f"the target {params.target} is not an address that Apprise knows",
        }.get(self._run_process(json.dumps(order)), f"the target {params.target} did not accept the message")
        if fault is not None:
            raise DeliveryFailed(fault, permanent=False)

    def _run_process(self, order: str) -> str:
        """Return the word that the process writes; an empty text if the process was ended before.

        stderr may contain secrets and is discarded. stdin stays open, so that the process ends itself after
        this one is killed.
        """
        try:
            with subprocess.Popen(  # noqa: S603 - our own file; the text of callers comes by stdin
                [sys.executable, "-P", str(_PROCESS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process:
                deadline = threading.Timer(2 * self._timeout, process.kill)
                deadline.start()
                try:
                    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
                    stdin.write(order + "\n")
                    stdin.flush()
                    return stdout.read()
                finally:
                    deadline.cancel()
        except OSError:
            return ""
