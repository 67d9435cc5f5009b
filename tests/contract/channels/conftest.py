"""The channels, each with the server that it sends to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import not_covered
from tests.support.channels import (
    CHANNELS_IN_A_FOLDER,
    Channel,
    RabbitmqChannel,
    started,
)
from tests.support.outbox import Outbox, opened
from tests.support.real import RealPartMissing
from tests.support.real.rabbitmq import RabbitMq
from tests.support.tasks import new_uuid


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[RabbitMq]:
    broker = RabbitMq()
    try:
        broker.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "RabbitMQ", str(missing))
    yield broker
    broker.__exit__()


def channel_of(request: pytest.FixtureRequest, method: str) -> Channel:
    if method == "rabbitmq":
        return RabbitmqChannel(request.getfixturevalue("rabbitmq"), f"jobs-{new_uuid()}")
    return CHANNELS_IN_A_FOLDER[method](request.getfixturevalue("tmp_path"))


EVERY_CHANNEL = [*CHANNELS_IN_A_FOLDER, pytest.param("rabbitmq", marks=pytest.mark.real)]


@pytest.fixture(params=EVERY_CHANNEL)
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, request.param))


@pytest.fixture
def email(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "email"))


@pytest.fixture
def gmail(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "gmail"))


@pytest.fixture
def slack(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "slack"))


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "rabbitmq"))


@pytest.fixture
def webhook(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "webhook"))


@pytest.fixture
def apprise(request: pytest.FixtureRequest) -> Iterator[Channel]:
    yield from started(channel_of(request, "apprise"))


@pytest.fixture
def outbox(channel: Channel, tmp_path: Path) -> Iterator[Outbox]:
    yield from opened(Outbox(tmp_path / "store.sqlite3", channel))
