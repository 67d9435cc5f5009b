"""The turns of threads and processes to write to the SQLite file."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import DuplicateUuid, StoreUnavailable
from app.store.sqlite import SqliteStore
from tests.conftest import until
from tests.support.stores import find, make_record

_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM windows")
print("writing", flush=True)
time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.sqlite3", timeout=0.3)
    store.prepare()
    yield store
    store.close()


@contextmanager
def another_process_that_writes(store: SqliteStore) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of a transaction."""
    argv = [sys.executable, "-c", _WRITER, str(store._path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        try:
            yield process
        finally:
            process.kill()


def test_write_gives_up_if_another_process_writes_for_too_long(store: SqliteStore) -> None:
    record = make_record()
    with another_process_that_writes(store):
        with pytest.raises(StoreUnavailable, match="database is locked"):
            store.add_record(record)
        assert find(store, record.uuid) is None, "reading goes on meanwhile"
    store.add_record(record)


def test_write_succeeds_after_a_writing_process_is_killed(store: SqliteStore) -> None:
    record = make_record()
    patient = SqliteStore(store._path, timeout=30)
    with another_process_that_writes(store) as process, ThreadPoolExecutor(1) as pool:
        added = pool.submit(patient.add_record, record)
        process.kill()
        added.result(timeout=30)
    assert find(store, record.uuid) == record
    patient.close()


def test_write_gives_up_if_a_thread_of_its_process_writes_for_too_long(store: SqliteStore) -> None:
    record, may_end = make_record(), threading.Event()

    def write_for_long() -> None:
        with store.writing():
            may_end.wait(60)

    thread = threading.Thread(target=write_for_long)
    thread.start()
    until(lambda: store._turns._lock.locked())
    with pytest.raises(StoreUnavailable, match="database is locked"):
        store.add_record(record)
    may_end.set()
    thread.join()
    store.add_record(record)


def test_write_waits_no_longer_than_it_asks_for(store: SqliteStore) -> None:
    patient, began = SqliteStore(store._path, timeout=60), time.monotonic()
    with another_process_that_writes(store):
        for within in (0.05, 0):
            with pytest.raises(StoreUnavailable, match="database is locked"), patient.writing(within):
                pass
    assert time.monotonic() - began < 30
    patient.close()


def test_write_that_fails_fails_only_its_own_caller(store: SqliteStore) -> None:
    """Each thread adds records of its own, and one that all of them add; one of them wins."""
    common = make_record()
    records = [make_record() for _ in range(40)]
    patient = SqliteStore(store._path, timeout=30)  # a busy machine is no failure

    def add(number: int) -> bool:
        try:
            patient.add_record(common)
        except DuplicateUuid:
            return False
        finally:
            patient.add_record(records[number])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(40))) == 1
    assert len(store.find_by_uuids([record.uuid for record in records])) == 40
    patient.close()


def test_write_without_space_leaves_the_turn_to_the_next(store: SqliteStore) -> None:
    record = make_record(task={**make_record().task, "params": ["x" * 100_000]})
    with store.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    limited = LimitedStore(store._path, pages)
    with pytest.raises(StoreUnavailable, match="full"):
        limited.add_record(record)
    limited.release_reservation(record)
    store.add_record(record)
    limited.close()


class LimitedStore(SqliteStore):
    """A store whose file cannot grow, as on a full disk."""

    def __init__(self, path: Path, pages: int) -> None:
        super().__init__(path)
        self._pages = pages

    def _open_connection(self) -> sqlite3.Connection:
        connection = super()._open_connection()
        connection.execute(f"PRAGMA max_page_count = {self._pages}")
        return connection
