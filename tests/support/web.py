"""Requests to a service in this process."""

import json
import re
from typing import Any

from flask.testing import FlaskClient

KEY = "c2VjcmV0IGtleSBmb3IgdGVzdHM="


def post(client: FlaskClient, path: str, body: Any, **options: Any) -> Any:
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(path, data=data, **options)


def check_error(response: Any, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert response.text.endswith("}\n")
    assert response.json["code"] == code
    assert re.fullmatch(r"[^\n<>]+", response.json["error"])


CHANNELS: list[tuple[str, dict[str, Any], str]] = [
    ("gmail", {"sender": "a@example.com", "recipient": "b@example.com"}, "gmail:*@example.com"),
    ("slack", {"channel": "#jobs"}, "slack:#jobs"),
    ("rabbitmq", {"queue": "jobs"}, "rabbitmq: jobs"),
    ("webhook", {"url": "https://h.example/jobs"}, "webhook:https://h.example/*"),
    ("apprise", {"target": "team"}, "apprise:team"),
]


QUEUE = {"queue": "jobs"}
