"""How many connections a process keeps open."""

import resource
from collections.abc import Iterator

import pytest

from app.connections.table import ConnectionTable
from app.environment import read_settings


@pytest.fixture(autouse=True)
def limit_on_open_files() -> Iterator[None]:
    """Give this process the limit that systemd sets by default: 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_table_warns_if_the_limit_on_open_files_allows_fewer_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = ConnectionTable(read_settings({"LIMIT_CONNECTIONS": "600"}))
    assert table.capacity == 512
    assert "LIMIT_CONNECTIONS is 600, but this process keeps at most 512 connections open" in caplog.text


def test_table_keeps_as_many_connections_as_the_limit_on_open_files_allows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = ConnectionTable(read_settings({"LIMIT_CONNECTIONS": "512"}))
    assert table.capacity == 512
    assert not caplog.records
