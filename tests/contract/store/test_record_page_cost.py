"""What a page of a list reads, counted: it does not grow with the number of records."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.store.mongo.documents import record_to_document
from app.store.sqlite import SqliteStore
from app.store.sqlite.rows import insert_record
from tests.support.databases import SharedDatabase
from tests.support.filters import make_filter
from tests.support.stores import NOW, make_record
from tests.support.tasks import make_task

LIMIT = 20
RARE_EACH = 20  # one record in so many meets the conditions below
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "user": {"username": "rare"},
    "users": {"username": ["rare", "alice"]},
    "state": {"state": "TIMEOUT"},
    "open": {"state": "open"},
    "ended": {"state": "ended"},
    "failed": {"state": "failed"},
    "name": {"name": "rare"},
    "job name": {"job_name": "rare"},
    "partition": {"partition": "rare"},
    "caller": {"caller": "rare"},
    "lineage": {"resubmitted_from": "rare"},
    "times": {
        "since": (NOW - timedelta(hours=1)).isoformat(),
        "until": (NOW - timedelta(minutes=1)).isoformat(),
    },
    "user and state": {"username": "rare", "state": "failed"},
    "user, state and times": {"username": "rare", "state": "ended", "since": "1h"},
}
ORDERS = list(TaskOrder)


def make_one(number: int) -> TaskRecord:
    """Return a record that meets each condition on a rare value, or none of them."""
    word = "rare" if number % RARE_EACH == 0 else "common"
    state = JobState.TIMEOUT if word == "rare" else (JobState.COMPLETED, JobState.RUNNING)[number % 2]
    slurm = {"job_name": word, "partition": word}
    return make_record(
        task=make_task(username=word, name=word, slurm=slurm),
        created_at=NOW - timedelta(seconds=number),
        slurm_job_id=number + 1,
        slurm_job_state=state,
        job=SlurmJob(job_id=number + 1, username=word, job_state=state, name=word, partition=word)
        if number % 2
        else None,
        caller=word,
        resubmitted_from=word if word == "rare" else None,
    )


def read_two_pages(
    store: Any, wanted: TaskFilter, order: TaskOrder, usernames: list[str] | None = None
) -> int:
    """Read a page and the one after it; return how many tasks they have."""
    first = store.find_page(wanted, usernames, order=order, limit=LIMIT)
    assert first.next is not None
    second = store.find_page(wanted, usernames, order=order, limit=LIMIT, after=first.next)
    return len(first.tasks) + len(second.tasks)


def count_steps(store: SqliteStore, wanted: TaskFilter, order: TaskOrder) -> int:
    """Return how many hundred instructions SQLite's machine executes for two pages."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store.reading() as connection:  # the next one to read has the same connection
        connection.set_progress_handler(count, 100)
    assert read_two_pages(store, wanted, order) == 2 * LIMIT
    with store.reading() as connection:
        connection.set_progress_handler(None, 0)
    return steps


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with few records, and one with ten times as many."""
    stores = []
    for count in (50 * RARE_EACH, 500 * RARE_EACH):
        store = SqliteStore(Path(tmp_path_factory.mktemp("pages")) / "store.sqlite3")
        store.prepare()
        with store.writing() as connection:
            for number in range(count):
                insert_record(connection, make_one(number))
        stores.append(store)
    yield stores
    for store in stores:
        store.close()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("values", FILTERS.values(), ids=FILTERS.keys())
def test_a_page_takes_sqlite_as_many_steps_with_ten_times_the_records(
    files: Any, values: dict[str, Any], order: TaskOrder
) -> None:
    few, many = (count_steps(store, make_filter(values, NOW), order) for store in files)
    assert many <= 1.1 * few + 2


@pytest.mark.parametrize("values", FILTERS.values(), ids=FILTERS.keys())
def test_sqlite_sorts_no_records_for_a_page(files: Any, values: dict[str, Any]) -> None:
    store = files[0]
    statements: list[str] = []
    with store.reading() as connection:
        connection.set_trace_callback(statements.append)
    read_two_pages(store, make_filter(values, NOW), TaskOrder.NEWEST)
    with store.reading() as connection:
        connection.set_trace_callback(None)
        read = [statement for statement in statements if "is_wanted" in statement]
        steps = [row["detail"] for one in read for row in connection.execute(f"EXPLAIN QUERY PLAN {one}")]
    assert read
    assert not [step for step in steps if "TEMP B-TREE" in step]
    assert all("USING INDEX" in step or "COVERING INDEX" in step for step in steps if " tasks " in step)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("values", FILTERS.values(), ids=FILTERS.keys())
def test_a_page_examines_only_its_own_documents(
    mongo_database: SharedDatabase, values: dict[str, Any], order: TaskOrder
) -> None:
    store = mongo_database.store()
    store.tasks.insert_many([record_to_document(make_one(number)) for number in range(50 * RARE_EACH)])
    database = store.client[mongo_database.name]
    database.command("profile", 2)
    read_two_pages(store, make_filter(values, NOW), order)
    database.command("profile", 0)
    commands = list(database["system.profile"].find({"op": "query", "ns": f"{mongo_database.name}.jobs"}))
    database.drop_collection("system.profile")
    store.close()
    assert commands
    assert not any(command.get("hasSortStage") for command in commands)
    examined = sum(command["docsExamined"] for command in commands)
    assert examined <= 8 * (LIMIT + 1), [command["docsExamined"] for command in commands]
    assert sum(command["keysExamined"] for command in commands) <= 10 * (LIMIT + 1) + 400


COMBINED: dict[str, dict[str, Any]] = {
    "a pattern": {"job_name": "rar*"},
    "a pattern that nothing fits": {"job_name": "*nothing*"},
    "a user with a pattern": {"username": "common", "job_name": "*nothing*"},
    "what never occurs together": {"name": "common", "partition": "rare", "state": "COMPLETED"},
}


@pytest.mark.parametrize("values", COMBINED.values(), ids=COMBINED.keys())
def test_a_page_checks_a_bounded_number_of_rows(files: Any, values: dict[str, Any]) -> None:
    """All 10,000 rows take many more steps."""
    store = files[1]
    wanted, after, pages, found = make_filter(values, NOW), None, 0, 0
    while True:
        page = store.find_page(wanted, None, after=after, limit=1000)
        found, pages, after = found + len(page.tasks), pages + 1, page.next
        if after is None:
            break
    assert pages <= 3
    assert found == (500 if values == {"job_name": "rar*"} else 0)
