"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.environment import read_settings
from app.services import build_services
from tests.support.fakes import FakeSlurm
from tests.support.web import KEY


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def app(tmp_path: Path, slurm: Any) -> Iterator[Flask]:
    config = {
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "MONGODB_URI": None,
        "SQLITE_PATH": tmp_path / "store.sqlite3",
        "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
    }
    app = create_app(config)
    services = build_services(read_settings(config), slurm)
    app.extensions["slurm_proxy"] = services
    services.store.prepare()
    yield app
    services.store.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
