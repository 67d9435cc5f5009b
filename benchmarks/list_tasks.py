"""Measure a page of the list of tasks with few records and with many, for each filter and order.

python -m benchmarks.list_tasks [--mongodb mongodb://…] [--few N] [--many N]

Prints the shortest time of a page with few records, and the ratio of that with many records to it. Both are
measured in turns. The databases are deleted afterwards.
"""

import argparse
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import TaskRecord
from app.models.task_filter import TaskOrder
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.mongo.documents import record_to_document
from app.store.sqlite import SqliteStore
from app.store.sqlite.rows import insert_record
from tests.support.filters import make_filter
from tests.support.tasks import make_task

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 50  # so that each filter has two full pages of 1,000 records, too
REPEATS = 9
_BATCH_SIZE = 5_000
_USERS = 4
# Nothing meets the last one, so that as many records are checked as may be.
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "username": {"username": "user3"},
    "three users": {"username": ["user1", "user2", "user3"]},
    "state=TIMEOUT": {"state": "TIMEOUT"},
    "state=open": {"state": "open"},
    "state=ended": {"state": "ended"},
    "state=failed": {"state": "failed"},
    "user, failed": {"username": "user3", "state": "failed"},
    "name": {"name": "generic"},
    "job_name": {"job_name": "train-3"},
    "partition": {"partition": "gpu"},
    "caller": {"caller": "key3"},
    "resubmitted_from": {"resubmitted_from": "first"},
    "since and until": {"since": (NOW - timedelta(minutes=15)).isoformat(), "until": "1m"},
    "job_name=train-*": {"job_name": "train-*"},
    "job_name=*none*": {"job_name": "*none*"},
}


def make_one(number: int) -> TaskRecord:
    """Return one of the records, which has ended unless its number is small."""
    states = (JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT)
    state = JobState.RUNNING if number < 200 else states[number // _USERS % 4]
    username, name = f"user{number % _USERS}", f"train-{number % 5}"
    partition = ("cpu", "gpu")[number % 2]
    at = NOW - timedelta(seconds=number)
    return TaskRecord(
        task=make_task(username=username, slurm={"job_name": name, "partition": partition}),
        slurm_username=username,
        slurm_job_id=number + 1,
        slurm_job_state=state,
        created_at=at,
        updated_at=at,
        job=SlurmJob(
            job_id=number + 1,
            username=username,
            job_state=state,
            name=name,
            partition=partition,
            start_time=at,
        ),
        caller=f"key{number % 5}",
        resubmitted_from="first" if number % 3 == 0 else None,
    )


def _batches(count: int) -> Iterator[list[TaskRecord]]:
    for first in range(0, count, _BATCH_SIZE):
        yield [make_one(number) for number in range(first, min(first + _BATCH_SIZE, count))]


@contextmanager
def _sqlite_store(count: int) -> Iterator[TaskStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "store.sqlite3")
        store.prepare()
        for batch in _batches(count):
            with store.writing() as connection:
                for record in batch:
                    insert_record(connection, record)
        yield store
        store.close()


@contextmanager
def _mongo_store(uri: str, count: int) -> Iterator[TaskStore]:
    store = MongoStore(connect(uri, 60), f"benchmark_{secrets.token_hex(8)}", "jobs")
    try:
        for batch in _batches(count):
            store.tasks.insert_many([record_to_document(record) for record in batch], ordered=False)
        store.prepare()
        yield store
    finally:
        store.client.drop_database(store.tasks.database.name)
        store.close()


def _seconds_of_page(store: TaskStore, values: dict[str, Any], order: TaskOrder) -> float:
    """Return how long a page after the first one takes."""
    wanted = make_filter(values, NOW)
    after = store.find_page(wanted, None, order=order, limit=LIMIT).next
    began = time.perf_counter()
    store.find_page(wanted, None, order=order, limit=LIMIT, after=after)
    return time.perf_counter() - began


def _compare(title: str, few: TaskStore, many: TaskStore) -> None:
    print(f"{title}: filter and order, milliseconds with few records, ratio with many")
    for name, values in FILTERS.items():
        for order in TaskOrder:
            turns = [
                [_seconds_of_page(store, values, order) for store in (few, many)] for _ in range(REPEATS)
            ]
            small, large = (min(times) for times in zip(*turns, strict=True))
            print(f"  {name:18} {order:7} {1000 * small:7.1f} {large / small:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mongodb")
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        stores = [stack.enter_context(_sqlite_store(count)) for count in (options.few, options.many)]
        _compare("SQLite", *stores)
    if options.mongodb:
        with ExitStack() as stack:
            stores = [
                stack.enter_context(_mongo_store(options.mongodb, count))
                for count in (options.few, options.many)
            ]
            _compare("MongoDB", *stores)


if __name__ == "__main__":
    main()
