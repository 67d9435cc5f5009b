"""A service in this process, on a cluster in memory, and requests to it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.environment import read_settings
from app.services import build_services

KEY = "c2VjcmV0IGtleSBmb3IgdGVzdHM="


def settings_with_sqlite(path: Path, **settings: Any) -> dict[str, Any]:
    """Return the settings of a service whose store is the file at `path`."""
    return {
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "MONGODB_URI": None,
        "SQLITE_PATH": path,
        **settings,
    }


def make_app(settings: dict[str, Any], slurm: Any) -> Flask:
    """Return the application on `slurm`, without its threads; the caller prepares and closes its store."""
    app = create_app(settings)
    app.extensions["slurm_proxy"].store.close()
    app.extensions["slurm_proxy"] = build_services(read_settings(settings), slurm)
    return app


@contextmanager
def prepared_app(path: Path, slurm: Any, **settings: Any) -> Iterator[Flask]:
    """Make the application on `slurm`, whose store is the file at `path`, and close the store at the end."""
    app = make_app(settings_with_sqlite(path, **settings), slurm)
    store = app.extensions["slurm_proxy"].store
    store.prepare()
    try:
        yield app
    finally:
        store.close()


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
