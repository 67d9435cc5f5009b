"""The SQLite file when it is removed or replaced under a server that runs."""

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import StoreRefused
from app.store.sqlite import SqliteStore
from tests.support.access import Site
from tests.support.stores import LATER, make_record

FILES = ("store.sqlite3", "store.sqlite3-wal", "store.sqlite3-shm")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "store.sqlite3")
    yield site
    site.services.store.close()


@pytest.mark.parametrize("files", [FILES, *((name,) for name in FILES)])
def test_a_submission_is_refused_after_a_file_of_the_store_was_removed(
    site: Site, tmp_path: Path, files: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    key = site.key()
    assert site.submit(key).status_code == 200
    left = {path.name for path in tmp_path.iterdir()} - set(files)
    for name in files:
        (tmp_path / name).unlink()
    for _ in range(2):
        answer = site.submit(key)
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert len(site.slurm.submitted) == 1
    assert (
        "store.sqlite3 was removed or replaced while the server was running: put the same file back"
        in caplog.text
    )
    assert {path.name for path in tmp_path.iterdir()} == left


def test_many_threads_make_no_new_file_after_the_file_was_removed(site: Site, tmp_path: Path) -> None:
    """Each of them would open a connection of its own."""
    key, statuses = site.key(), []
    for name in FILES:
        (tmp_path / name).unlink()

    def submit() -> None:
        statuses.append(site.app.test_client().get("/monitor/x", headers={"Authorization": f"Bearer {key}"}))

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_moved_back_is_used_again(store: SqliteStore, tmp_path: Path) -> None:
    store.add_record(make_record())
    aside = tmp_path / "aside"
    aside.mkdir()
    for name in FILES:
        (tmp_path / name).rename(aside / name)
    with pytest.raises(StoreRefused):
        store.add_record(make_record())
    for name in FILES:
        (aside / name).rename(tmp_path / name)
    store.add_record(make_record())
    assert len(store.list_reservations(LATER)) == 2


def test_a_file_that_was_replaced_is_used_after_a_restart_only(store: SqliteStore, tmp_path: Path) -> None:
    first = make_record()
    store.add_record(first)
    path = tmp_path / "store.sqlite3"
    backup = SqliteStore(tmp_path / "backup.sqlite3")
    backup.prepare()
    backup.close()
    shutil.move(tmp_path / "backup.sqlite3", path)
    with pytest.raises(StoreRefused, match="removed or replaced"):
        store.add_record(make_record())
    with pytest.raises(StoreRefused, match="removed or replaced"):
        store.find_by_uuids([first.uuid])
    worker = SqliteStore(path)  # of gunicorn, in place of one that has ended
    with pytest.raises(StoreRefused, match="removed or replaced"):
        worker.ping()
    store.close()
    for name in FILES[1:]:
        (tmp_path / name).unlink(missing_ok=True)
    store.prepare()
    store.add_record(make_record())


def test_a_write_is_not_acknowledged_if_the_file_is_removed_during_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    def write() -> None:
        with store.writing() as connection:
            connection.execute("UPDATE leases SET until = 0")
            (tmp_path / "store.sqlite3").unlink()

    with pytest.raises(StoreRefused, match="removed or replaced"):
        write()


def test_a_store_that_finds_no_file_makes_none_without_a_start(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    with pytest.raises(StoreRefused, match=r"there is no file .*/store.sqlite3: put it back"):
        store.ping()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b?c#d%41.sqlite3", "ünï.sqlite3"])
def test_sqlite_file_with_special_characters_in_its_name_is_used(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        store = SqliteStore(path)
        store.prepare()
        store.add_record(make_record())
        assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}-wal", f"{name}-shm"}
        store.close()


def test_only_the_owner_can_read_the_files_of_the_store(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "store.sqlite3")
        store.prepare()
        store.add_record(make_record())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(FILES, 0o600)
    store.close()
