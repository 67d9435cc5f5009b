"""A client of Slack's API, with a deadline and a size limit for answers."""

import ssl
from functools import cached_property
from json import dumps, loads
from typing import Any, cast

from slack_sdk import WebClient
from slack_sdk.web.slack_response import SlackResponse

from app.senders.deadline import Deadline
from app.senders.http import send_request


class SlackClient(WebClient):
    """slack-sdk's client on our own transport, with a deadline and a size limit for answers."""

    def __init__(self, token: str, base_url: str, timeout: float) -> None:
        """Create a client; nothing connects yet. `timeout`: seconds for each step on the network."""
        super().__init__(token, base_url=base_url)  # reads the proxy from the environment
        self._timeout = timeout

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Return the trusted certificate authorities, read once: reading takes longer than sending."""
        return ssl.create_default_context()

    def api_call(self, api_method: str, *, json: dict[str, Any] | None = None, **_: Any) -> SlackResponse:
        """Post one call as JSON.

        Raises:
            OSError: No complete answer came.
            SlackApiError: Slack, or a server in between, refuses the call.
        """
        url = self.base_url + api_method
        headers = {
            **self.headers,
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json;charset=utf-8",
        }
        with Deadline(2 * self._timeout) as deadline:
            answer = send_request(
                deadline,
                "POST",
                url,
                dumps(json).encode(),
                headers,
                timeout=self._timeout,
                trust=self._trust,
                proxy=self.proxy,
            )
        response = SlackResponse(
            client=self,
            http_verb="POST",
            api_url=url,
            req_args={},
            data=_parse_object(answer.content),
            headers=cast("dict[str, str]", answer.headers),
            status_code=answer.status,
        )
        response.validate()  # type: ignore[no-untyped-call]
        return response


def _parse_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`, or an empty one."""
    try:
        found = loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
