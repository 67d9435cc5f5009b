"""Backups of both stores: while records change, on a full disk, and killed in the middle."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from app.errors import CopyFailed
from app.job_state import JobState
from app.lifecycle.back_up import StoreBackup
from app.models.record import TaskRecord
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from app.store.transfer import Entry
from tests.conftest import until
from tests.support.databases import SharedDatabase
from tests.support.real.disk import no_larger_files
from tests.support.real.mongod import Mongod
from tests.support.service import ROOT
from tests.support.stores import LATER, Factory, make_record, make_running
from tests.support.tasks import new_uuid
from tests.support.transfers import content_of, export, import_file, silent


class Writers:
    """Threads that add reservations, accept their jobs, and release some of them."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._is_over = threading.Event()
        self.reserved: list[TaskRecord] = []  # acknowledged, and not released
        self.accepted: list[TaskRecord] = []  # acknowledged with their jobs

    def _write(self) -> None:
        with closing(self._factory()) as store:
            for number in count(1):
                if self._is_over.is_set():
                    return
                self._write_one(store, number)

    def _write_one(self, store: TaskStore, number: int) -> None:
        record = make_record()
        store.add_record(record)
        if number % 5 == 0:
            store.release_reservation(record)
            store.add_record(record)  # the same uuid again
        self.reserved.append(record)
        if number % 2 == 0:
            store.accept_job(record, number, JobState.RUNNING, LATER)
            self.accepted.append(record)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._write) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(self.accepted) >= 50, 30, "the first records")
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()


def copy_of(file: Path, folder: Path) -> SqliteStore:
    """Return a store with the content of a backup."""
    if file.suffix == ".sqlite3":
        store = SqliteStore(file)
        store.prepare()
        return store
    store = SqliteStore(folder / f"{new_uuid()}.sqlite3")
    store.prepare()
    _, conflicts = import_file(store, file)
    assert conflicts == []
    return store


def check_backups_under_load(factory: Factory, folder: Path, suffix: str, *, snapshot: bool = True) -> None:
    writers = Writers(factory)
    made: list[tuple[Path, set[str], set[str]]] = []
    with closing(factory()) as store, writers.at_work():
        for number in range(5):
            file = folder / f"{number}.{suffix}"
            reserved = {record.uuid for record in writers.reserved.copy()}
            accepted = {record.uuid for record in writers.accepted.copy()} & reserved
            StoreBackup(store, None).back_up(file, silent, overwrite=False, snapshot=snapshot)
            made.append((file, reserved, accepted))
    for file, reserved, accepted in made:
        with closing(copy_of(file, folder)) as copy:
            found = copy.find_by_uuids(list(reserved))
            assert found.keys() == reserved
            assert all(found[uuid].slurm_job_state is JobState.RUNNING for uuid in accepted)
            assert (copy.count_records() or 0) >= len(reserved)


def test_a_backup_of_sqlite_under_load_is_complete_and_sound(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store.sqlite3").prepare()
    check_backups_under_load(lambda: SqliteStore(tmp_path / "store.sqlite3", 30), tmp_path, "sqlite3")
    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}.sqlite3")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.real
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_backup_of_mongodb_under_load_is_complete(
    mongo_database: SharedDatabase, tmp_path: Path, suffix: str
) -> None:
    check_backups_under_load(mongo_database.store, tmp_path, suffix)


@pytest.mark.real
@pytest.mark.parametrize("snapshot", [True, False])
def test_a_backup_of_a_replica_set_under_load_is_complete(
    replica_set: Mongod, tmp_path: Path, snapshot: bool
) -> None:
    database = SharedDatabase(replica_set.uri)
    check_backups_under_load(database.store, tmp_path, "jsonl", snapshot=snapshot)
    is_snapshot = '"is_snapshot":true' in (tmp_path / "0.jsonl").read_text().partition("\n")[0]
    assert is_snapshot is snapshot
    database.close()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    store.import_entries([Entry(make_running()) for _ in range(1200)])
    yield store
    store.close()


def test_a_backup_of_sqlite_can_take_the_place_of_the_database(filled: SqliteStore, tmp_path: Path) -> None:
    file = tmp_path / "backup.sqlite3"
    expected = export(filled, tmp_path / "export.jsonl")
    StoreBackup(filled, tmp_path / "store.sqlite3").back_up(file, silent, overwrite=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.sqlite3"]
    filled.close()
    for path in tmp_path.glob("store.sqlite3*"):
        path.unlink()
    file.rename(tmp_path / "store.sqlite3")
    restored = SqliteStore(tmp_path / "store.sqlite3")
    restored.prepare()
    assert export(restored, tmp_path / "again.jsonl") == expected
    restored.close()


def test_a_damaged_database_leaves_the_earlier_backup(filled: SqliteStore, tmp_path: Path) -> None:
    filled.close()
    path, file = tmp_path / "store.sqlite3", tmp_path / "backup.sqlite3"
    size = path.stat().st_size
    with path.open("r+b") as database:
        database.seek(size // 2 // 4096 * 4096)
        database.write(b"\xff" * 8192)
    file.write_text("an earlier backup")
    with pytest.raises(CopyFailed, match="the database is damaged: "):
        StoreBackup(SqliteStore(path), path).back_up(file, silent, overwrite=True)
    assert file.read_text() == "an earlier backup"
    assert [found.name for found in tmp_path.glob("backup*")] == ["backup.sqlite3"]


@pytest.mark.parametrize("suffix", ["sqlite3", "jsonl"])
def test_a_full_disk_leaves_the_earlier_file(filled: SqliteStore, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / f"backup.{suffix}"
    file.write_text("an earlier backup")
    backup = StoreBackup(filled, tmp_path / "store.sqlite3")
    runs: dict[str, Callable[[], object]] = {
        "sqlite3": partial(backup.back_up, file, silent, overwrite=True),
        "jsonl": partial(backup.export, file, silent, overwrite=True, with_keys=True, snapshot=True),
    }
    with no_larger_files(folder), pytest.raises(CopyFailed) as caught:
        runs[suffix]()
    assert "cannot be" in str(caught.value)
    assert file.read_text() == "an earlier backup"
    assert list(folder.iterdir()) == [file]


def test_the_memory_of_an_export_and_an_import_does_not_grow_with_the_records(tmp_path: Path) -> None:
    peaks = []
    for number in (1000, 2500):  # a batch has 500, and the next one is read before it is given up
        store, target = (SqliteStore(tmp_path / f"{name}-{number}.sqlite3") for name in ("from", "to"))
        for each in (store, target):
            each.prepare()
        store.import_entries([Entry(make_running()) for _ in range(number)])
        tracemalloc.start()
        file = tmp_path / "export.jsonl"
        StoreBackup(store, None).export(file, silent, overwrite=True, with_keys=True, snapshot=True)
        import_file(target, file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        store.close()
        target.close()
    assert peaks[1] < 1.3 * peaks[0]


# --- killed in the middle -------------------------------------------------------------------------


def run_and_kill(*arguments: str) -> None:
    command = [sys.executable, "-m", "tests.support.killed_copy", *arguments]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_backup_that_is_killed_leaves_the_earlier_file(filled: SqliteStore, tmp_path: Path) -> None:
    file = tmp_path / "backup.sqlite3"
    file.write_text("an earlier backup")
    run_and_kill("backup", str(file), "sqlite", str(tmp_path / "store.sqlite3"))
    assert file.read_text() == "an earlier backup"
    assert (tmp_path / "backup.sqlite3.partial").exists()
    StoreBackup(filled, None).back_up(file, silent, overwrite=True)
    assert not (tmp_path / "backup.sqlite3.partial").exists()
    copy = SqliteStore(file)
    assert copy.count_records() == 1200
    copy.close()


@pytest.mark.real
def test_a_backup_of_mongodb_that_is_killed_leaves_the_earlier_file(
    mongo_database: SharedDatabase, tmp_path: Path
) -> None:
    store = mongo_database.store()
    store.import_entries([Entry(make_running()) for _ in range(100)])
    file = tmp_path / "backup.jsonl"
    file.write_text("an earlier backup")
    run_and_kill("backup", str(file), "mongodb", mongo_database.uri, mongo_database.name, "jobs")
    assert file.read_text() == "an earlier backup"
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def test_an_import_that_is_killed_can_be_repeated(
    request: pytest.FixtureRequest, filled: SqliteStore, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "export.jsonl"
    exported = export(filled, file)
    target: TaskStore
    if kind == "sqlite":
        target, place = SqliteStore(tmp_path / "target.sqlite3"), [str(tmp_path / "target.sqlite3")]
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        target = MongoStore(connect(database.uri, 5), database.name, "moved")
        place = [database.uri, database.name, "moved"]
    target.prepare()
    run_and_kill("import", str(file), kind, *place)
    assert 0 < (target.count_records() or 0) < 1200
    report, conflicts = import_file(target, file, force=True)  # the killed one still holds the lease
    assert (report.added + report.present, conflicts) == (1200, [])
    assert report.present > 0
    export(target, tmp_path / "again.jsonl")
    assert content_of(tmp_path / "again.jsonl") == exported
    target.close()
