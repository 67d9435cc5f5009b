"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.fakes import FakeSlurm
from tests.support.web import prepared_app


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def app(tmp_path: Path, slurm: FakeSlurm) -> Iterator[Flask]:
    path = tmp_path / "store.sqlite3"
    with prepared_app(path, slurm, NOTIFICATIONS_SMTP_SERVER="mail.example.com") as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
