"""Fill a store with many records at once: copies of two that went through the store's own methods."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, TaskRecord
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from benchmarks.command import Store
from benchmarks.service import held_task, store_settings
from benchmarks.stand_in import USER

_BATCH = 10_000
_COLLECTION = "jobs"  # the default of MONGODB_MONITOR_JOBS_COLLECTION
Job = tuple[str, int]  # the uuid of its task, and its id


def fill_store(store: Store, folder: Path, jobs: Iterable[Job], ended: int = 0) -> None:
    """Add an open record for each of `jobs`, and records of further jobs that have ended.

    Args:
        store: The store of the service that will be started with this folder.
        folder: The folder of that service.
        jobs: The open jobs.
        ended: How many records have ended; their job ids are below 1,000,000.
    """
    folder.mkdir(exist_ok=True)
    settings = store_settings(store, folder)
    if store.mongodb:
        _fill_mongodb(store.mongodb, settings["MONGODB_MONITOR_DB"], jobs, ended)
    else:
        _fill_sqlite(Path(settings["SQLITE_PATH"]), jobs, ended)


def list_ended_jobs(number: int) -> Iterator[Job]:
    """Yield jobs that have ended: slurmctld and slurmdbd do not know them."""
    return ((f"ended-{job_id:012d}", job_id) for job_id in range(1, number + 1))


@contextmanager
def count_cancelled(store: Store, folder: Path) -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many records have the state CANCELLED, which costs little."""
    settings = store_settings(store, folder)
    if store.mongodb:
        with closing(connect(store.mongodb, 60)) as client:
            tasks = client[settings["MONGODB_MONITOR_DB"]][_COLLECTION]
            yield lambda: tasks.count_documents({"slurm_job_state": JobState.CANCELLED})
        return
    with closing(SqliteStore(Path(settings["SQLITE_PATH"]))) as sqlite:

        def count() -> int:
            with sqlite.reading() as connection:
                query = "SELECT count(*) FROM tasks WHERE slurm_job_state = ?"
                return int(connection.execute(query, (JobState.CANCELLED,)).fetchone()[0])

        yield count


def _add_templates(store: TaskStore) -> None:
    """Add one open record and one that has ended, which are copied."""
    now = datetime.now(UTC)
    for uuid, state in (("open", JobState.PENDING), ("ended", JobState.COMPLETED)):
        task = held_task(uuid=f"template-{uuid}")
        record = TaskRecord(
            task=task, slurm_username=USER, created_at=now, updated_at=now, never_resubmitted=True
        )
        store.add_record(record)
        store.accept_job(record, 1, JobState.PENDING, now)
        job = SlurmJob(job_id=1, username=USER, job_state=state, submit_time=now, end_time=now, exit_code=0)
        fence = store.acquire_lease("benchmark", now, now + timedelta(minutes=1))
        assert fence is not None
        if state.is_final:
            store.apply_changes([Change(record.uuid, JobState.PENDING, state, now, job, ())], fence)
        store.release_lease("benchmark")


def _fill_sqlite(path: Path, jobs: Iterable[Job], ended: int) -> None:
    with closing(SqliteStore(path)) as store:
        store.prepare()
        _add_templates(store)
        for uuid, copies in (("template-open", jobs), ("template-ended", list_ended_jobs(ended))):
            with store.reading() as connection:
                row = dict(connection.execute("SELECT * FROM tasks WHERE uuid = ?", (uuid,)).fetchone())
            marks = ", ".join("?" * len(row))
            insert = f"INSERT INTO tasks ({', '.join(row)}) VALUES ({marks})"  # noqa: S608
            for batch in _split(copies):
                with store.writing() as connection:
                    connection.executemany(insert, (_copy_row(row, *job) for job in batch))
        with store.writing() as connection:
            connection.execute("DELETE FROM tasks WHERE uuid LIKE 'template-%'")


def _copy_row(row: dict[str, Any], uuid: str, job_id: int) -> list[Any]:
    changes = {"uuid": uuid, "slurm_job_id": job_id, "task": row["task"].replace(row["uuid"], uuid)}
    if row["job"]:
        changes["job"] = json.dumps({**json.loads(row["job"]), "job_id": job_id})
    return [changes.get(name, value) for name, value in row.items()]


def _fill_mongodb(uri: str, database: str, jobs: Iterable[Job], ended: int) -> None:
    with closing(MongoStore(connect(uri, 60), database, _COLLECTION)) as store:
        store.prepare()
        _add_templates(store)
        for uuid, copies in (("template-open", jobs), ("template-ended", list_ended_jobs(ended))):
            document = store.tasks.find_one({"uuid": uuid})
            assert document is not None
            for batch in _split(copies):
                store.tasks.insert_many([_copy_document(document, *job) for job in batch], ordered=False)
        store.tasks.delete_many({"uuid": {"$regex": "^template-"}})


def _copy_document(document: dict[str, Any], uuid: str, job_id: int) -> dict[str, Any]:
    copied = {
        **document,
        "uuid": uuid,
        "slurm_job_id": job_id,
        "task": {**document["task"], "uuid": uuid},
    }
    if copied.get("job"):
        copied["job"] = {**copied["job"], "job_id": job_id}
    del copied["_id"]
    return copied


def _split(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    left = iter(jobs)
    while batch := list(islice(left, _BATCH)):
        yield batch
