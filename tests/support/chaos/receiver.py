"""The receiver of the messages, which knows which message came for which task."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.real.http_services import Answer, Request, WebhookReceiver


class MessageReceiver(WebhookReceiver):
    """A server of webhooks with a path for each uuid."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: defaultdict[str, list[str]] = defaultdict(list)  # by uuid, the ids that came
        self._is_closed = False

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of a service that may send to it."""
        return {"NOTIFICATIONS_WEBHOOK_RECEIVERS": json.dumps({f"127.0.0.1:{self.port}": self.secret})}

    def make_request(self, uuid: str) -> dict[str, Any]:
        """Return the part `notification` of a task."""
        return {"methods": ["webhook"], "params": {"webhook": {"url": f"{self.url}/{uuid}"}}}

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Refuse all messages meanwhile."""
        self._is_closed = True
        try:
            yield
        finally:
            self._is_closed = False

    def take(self, request: Request) -> Answer:
        if self._is_closed:
            return Answer(503)
        answer = super().take(request)
        if answer.status == 204:
            self.messages[request.path.strip("/")].append(request.headers["webhook-id"])
        return answer
