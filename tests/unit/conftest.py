"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lifecycle import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "store.sqlite3")
    yield service
    service.store.close()
