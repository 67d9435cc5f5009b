"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store import TaskStore
from app.store.mongo import MongoStore
from app.store.sqlite import SqliteStore
from tests.conftest import USES_MONGOMOCK
from tests.support.databases import SharedDatabase
from tests.support.mongomock_server import MongomockServer, mark_unsupported
from tests.support.stores import Factory


@pytest.fixture(params=["sqlite", "mongomock", pytest.param("mongodb", marks=pytest.mark.real)])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    """Makes stores on one and the same database, as several processes would."""
    made: list[TaskStore] = []
    if request.param == "sqlite":
        make: Factory = lambda: SqliteStore(tmp_path / "store.sqlite3")  # noqa: E731
    elif request.param == "mongomock":
        mark_unsupported(request)
        request.config.stash[USES_MONGOMOCK] = True
        server = MongomockServer()
        make = lambda: MongoStore(server.connect(), "test", "jobs")  # noqa: E731
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        make = database.store

    def prepared() -> TaskStore:
        store = make()
        store.prepare()
        made.append(store)
        return store

    yield prepared
    for store in made:
        store.close()


@pytest.fixture
def store(factory: Factory) -> TaskStore:
    return factory()
