"""The schema version of a store: written at a start, and refused if it is a newer release's."""

from pathlib import Path

import pytest

from app.errors import StoreRefused
from app.store import TaskStore
from app.store.mongo import MongoStore
from app.store.schema_version import SCHEMA_VERSION, UNVERSIONED, require_known_version
from app.store.sqlite import SqliteStore
from tests.support.stores import Factory, find, make_running


def write_version(store: TaskStore, version: int) -> None:
    if isinstance(store, SqliteStore):
        with store.writing() as connection:
            connection.execute(f"PRAGMA user_version = {version}")
    elif isinstance(store, MongoStore):
        store.schema.replace_one({"_id": "schema"}, {"version": version}, upsert=True)


def test_a_prepared_store_has_the_version_of_this_release(factory: Factory) -> None:
    store = factory()
    assert store.read_schema_version() == SCHEMA_VERSION
    factory()
    assert store.read_schema_version() == SCHEMA_VERSION


def test_a_store_of_an_earlier_release_is_migrated(factory: Factory) -> None:
    store, record = factory(), make_running()
    store.add_record(record)
    write_version(store, 0)
    if isinstance(store, MongoStore):
        store.schema.delete_many({})
    assert store.read_schema_version() == UNVERSIONED
    again = factory()
    assert again.read_schema_version() == SCHEMA_VERSION
    assert find(again, record.uuid) == record


def test_a_store_of_a_newer_release_is_refused_and_left_as_it_is(factory: Factory) -> None:
    store = factory()
    write_version(store, SCHEMA_VERSION + 1)
    words = f"schema version {SCHEMA_VERSION + 1}, and slurm-proxy .* knows versions up to {SCHEMA_VERSION}: "
    with pytest.raises(StoreRefused, match=words):
        store.prepare()
    assert store.read_schema_version() == SCHEMA_VERSION + 1
    write_version(store, SCHEMA_VERSION)  # the fixture's database may be used again


def test_a_new_file_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").touch()
    store = SqliteStore(tmp_path / "store.sqlite3")
    assert store.read_schema_version() == UNVERSIONED
    require_known_version(store.read_schema_version())
    store.close()
