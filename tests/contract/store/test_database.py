"""The database behind a store: preparing, threads, time and outages."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import StoreTimeout, StoreUnavailable
from app.store import TaskStore
from app.store.breaker import allow_refusal
from app.store.clock import CLOCK_TOLERANCE
from app.store.mongo import MongoStore, connect
from app.store.mongo.database import DURABLE
from app.store.sqlite import SqliteStore
from tests.support.stores import Factory, find, make_running


def test_many_threads_leave_few_files_open(tmp_path: Path) -> None:
    """A server that makes a thread for each request must not run out of them."""
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    for _ in range(200):
        thread = threading.Thread(target=store.list_open_jobs)
        thread.start()
        thread.join()
    assert open_files(tmp_path) <= 5
    for _ in range(5):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: store.ping(), range(500)))
    assert open_files(tmp_path) <= 2 * 20 + 3
    store.close()


def open_files(folder: Path) -> int:
    """How many files below that folder this process has open."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(folder) in str(link.readlink()) for link in links if link.is_symlink())


def test_stores_of_one_database_tell_the_same_time(factory: Factory) -> None:
    one, other = factory(), factory()
    difference = other.now() - one.now()
    assert abs(difference) < CLOCK_TOLERANCE
    assert one.now().microsecond % 1000 == 0
    assert abs(one.now() - datetime.now(UTC)) < timedelta(minutes=5)


def test_preparing_again_keeps_everything(factory: Factory) -> None:
    record = make_running()
    factory().add_record(record)
    assert find(factory(), record.uuid) == record


def test_a_store_that_cannot_be_reached_raises_store_unavailable(tmp_path: Path) -> None:
    stores: list[TaskStore] = [
        SqliteStore(tmp_path / "no such folder" / "x.sqlite3"),
        MongoStore(connect("mongodb://127.0.0.1:9/", 0.2), "x", "y"),
    ]
    for store in stores:
        for ask in (store.prepare, store.ping, store.list_open_jobs):
            with pytest.raises(StoreUnavailable):
                ask()
        store.close()


def test_a_request_does_not_wait_for_a_mongodb_that_another_request_waits_for() -> None:
    store = MongoStore(connect("mongodb://127.0.0.1:9/", 0.2), "x", "y")
    asked: list[str] = []

    def ask_as_request() -> None:
        allow_refusal()
        with pytest.raises(StoreTimeout) as failure:
            store.list_open_jobs()
        asked.append("refused" if "has not been answering" in str(failure.value) else "waited")

    def wait_as_request(stack: ExitStack) -> None:
        allow_refusal()
        stack.enter_context(store.operating())

    Context().run(ask_as_request)
    with ExitStack() as stack:
        Context().run(wait_as_request, stack)
        for _ in range(5):
            Context().run(ask_as_request)
        with pytest.raises(StoreTimeout, match="MongoDB does not answer"):
            Context().run(store.list_open_jobs)  # as a loop does
    store.close()
    assert asked == ["waited", *["refused"] * 5]


def test_an_address_cannot_weaken_reads_and_writes_of_mongodb() -> None:
    options = "readPreference=secondaryPreferred&maxStalenessSeconds=90&w=0&connect=false"
    with connect(f"mongodb://127.0.0.1:1/?{options}", 1) as client:
        store = MongoStore(client, "database", "tasks")
        kept = [store.tasks, store.leases, store.reports, store.api_keys, store.schema]
        assert {str(item.read_preference) for item in [*kept, store.windows]} == {"Primary()"}
        assert {str(item.write_concern) for item in kept} == {str(DURABLE)}
        assert store.windows.write_concern.acknowledged
