"""Stores that can be read but not written: SQLite on a full disk, and a MongoDB that is locked."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from app.errors import DuplicateUuid, StoreUnavailable
from app.models.record import TaskRecord
from app.store.mongo import connect
from app.store.sqlite import SqliteStore
from tests.conftest import not_covered
from tests.support.access import Site
from tests.support.real import RealPartMissing
from tests.support.real.disk import SmallDisk, no_larger_files
from tests.support.real.mongod import Mongod
from tests.support.stores import make_record

Full = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["a full file system", "a limit for the size of files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """Yield a folder, and what makes it impossible to write there."""
    if request.param != "a full file system":
        yield tmp_path, partial(no_larger_files, tmp_path)
        return
    small = SmallDisk(tmp_path / "disk")
    try:
        small.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "a full file system", str(missing))
    yield small.path, small.full
    small.__exit__()


def test_a_get_with_a_key_works_on_a_full_disk(disk: tuple[Path, Full]) -> None:
    folder, full = disk
    site = Site(folder / "store.sqlite3")
    submitted = site.submit(site.key()).json
    keys = [site.key() for _ in range(2)]
    paths = [
        f"/monitor/task_uuid/{submitted['uuid']}",
        f"/monitor/slurm_job_id/{submitted['slurm_job_id']}",
        f"/monitor/slurm_job_state/{submitted['slurm_job_state']}",
    ]
    with full():
        for key in keys:
            for path in paths * 2:
                assert site.call("GET", path, key).status_code == 200, path
            answer = site.submit(key)
            assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
    assert len(site.slurm.submitted) == 1
    assert site.submit(keys[0]).status_code == 200
    site.services.store.close()


def test_a_worker_that_starts_on_a_full_disk_beside_another_can_read(disk: tuple[Path, Full]) -> None:
    folder, full = disk
    site = Site(folder / "store.sqlite3")
    key = site.key()
    submitted = site.submit(key).json
    with full():
        with pytest.raises(StoreUnavailable):
            site.services.store.add_record(make_record())
        worker = SqliteStore(folder / "store.sqlite3")
        assert worker.find_by_job_id(submitted["slurm_job_id"]) is not None
        worker.close()
        assert site.call("GET", f"/monitor/task_uuid/{submitted['uuid']}", key).status_code == 200
    site.services.store.close()


def test_a_task_can_be_cancelled_on_a_full_disk(disk: tuple[Path, Full]) -> None:
    folder, full = disk
    site = Site(folder / "store.sqlite3")
    key = site.key()
    uuid = site.submit(key).json["uuid"]
    with full():
        assert site.call("POST", f"/monitor/task_uuid/{uuid}/cancel", key).status_code == 200
    site.services.store.close()


def test_a_refused_key_is_refused_on_a_full_disk(disk: tuple[Path, Full]) -> None:
    folder, full = disk
    site = Site(folder / "store.sqlite3")
    key = site.key()
    assert site.keys.revoke(key.split("_")[1])
    with full():
        assert site.call("GET", "/monitor/task_uuid/x", key).status_code == 401
    site.services.store.close()


def test_records_written_before_the_disk_was_full_are_kept(disk: tuple[Path, Full]) -> None:
    folder, full = disk
    store = SqliteStore(folder / "store.sqlite3")
    store.prepare()
    kept: list[TaskRecord] = [make_record() for _ in range(20)]
    for record in kept:
        store.add_record(record)

    def add_many() -> None:
        for _ in range(200):
            store.add_record(make_record())

    with full(), pytest.raises(StoreUnavailable, match=r"full|disk I/O error"):
        add_many()
    for record in kept:
        with pytest.raises(DuplicateUuid):
            store.add_record(record)
    store.close()


@pytest.mark.real
def test_a_get_with_a_key_works_on_a_mongodb_that_is_locked(replica_set: Mongod, tmp_path: Path) -> None:
    site = Site(tmp_path / "unused", MONGODB_URI=replica_set.uri, MONGODB_TIMEOUT_SECONDS=1)
    keys = [site.key() for _ in range(2)]
    uuid = site.submit(keys[0]).json["uuid"]
    with connect(replica_set.uri, 10) as client:
        client.admin.command("fsync", lock=True)
        try:
            for key in keys * 2:
                assert site.call("GET", f"/monitor/task_uuid/{uuid}", key).status_code == 200
            assert site.submit(keys[0]).status_code == 503
        finally:
            client.admin.command("fsyncUnlock")
        assert site.submit(keys[0]).status_code == 200
        client.drop_database(site.services.store.tasks.database.name)
    site.services.store.close()


def test_requests_are_counted_again_after_the_store_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.request_limit._PAUSE_SECONDS", 0)
    site = Site(tmp_path / "store.sqlite3", LIMIT_REQUESTS_PER_MINUTE=2)
    key = site.key()
    with no_larger_files(tmp_path):
        statuses = [site.call("GET", "/monitor/task_uuid/x", key).status_code for _ in range(4)]
    assert statuses == [400] * 4
    assert [site.call("GET", "/monitor/task_uuid/x", key).status_code for _ in range(3)] == [400, 400, 429]
    site.services.store.close()
