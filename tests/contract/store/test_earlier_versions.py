"""Files and documents of earlier versions."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import JOB_TAG, RecordKind
from app.store import TaskStore
from app.store.mongo import MongoStore
from app.store.mongo.documents import record_to_document
from app.store.sqlite import SqliteStore
from tests.support.databases import SharedDatabase
from tests.support.stores import Factory, find, make_notification, make_record, make_running


def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    store = SqliteStore(path)
    store.prepare()
    record = make_running(notifications=(make_notification(),))
    store.add_record(record)
    with store.writing() as connection:
        for index in (
            "notifications_gathered",
            "notifications_digest",
            "tasks_caller",
            "tasks_caller_created",
        ):
            connection.execute(f"DROP INDEX {index}")
        for table, column in (
            ("tasks", "alarm_at"),
            ("tasks", "caller"),
            ("tasks", "kind"),
            ("notifications", "revived_at"),
            ("notifications", "recipient"),
            ("notifications", "digest"),
        ):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    store.close()
    later = SqliteStore(path)
    later.prepare()
    assert find(later, record.uuid) == record
    later.close()


def test_a_start_leaves_the_records_of_an_sqlite_store_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    store = SqliteStore(path)
    store.prepare()
    for record in (make_record(), make_running(notifications=(make_notification(),))):
        store.add_record(record)
    store.close()
    before = dump(path)
    again = SqliteStore(path)
    again.prepare()
    again.close()
    assert dump(path) == before


def dump(path: Path) -> list[str]:
    """Return the whole database as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize(
    ("comment", "has_job", "kind"),
    [
        (None, False, RecordKind.SUBMITTED),  # registered jobs were stored with their job at once
        ("{tag}", True, RecordKind.SUBMITTED),
        ("{tag} mine", True, RecordKind.SUBMITTED),
        ("{tag}x", True, RecordKind.REGISTERED),
        (None, True, RecordKind.REGISTERED),
    ],
)
def test_a_record_without_a_kind_is_read_by_what_slurm_said_of_its_job(
    store: TaskStore, comment: str | None, has_job: bool, kind: RecordKind
) -> None:
    record = make_running()
    comment = comment and comment.format(tag=JOB_TAG + record.uuid)
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.RUNNING, comment=comment)
    store.add_record(record.model_copy(update={"job": job if has_job else None}))
    _forget_kinds(store)
    found = find(store, record.uuid)
    assert found is not None
    assert found.kind is kind


def test_a_document_of_the_older_service_counts_as_registered(mongo_database: SharedDatabase) -> None:
    store = mongo_database.store()
    store.prepare()
    record = make_running()
    store.add_record(record)
    store.tasks.update_one({}, {"$unset": {"kind": "", "notifications": "", "job": ""}})
    found = find(store, record.uuid)
    assert found is not None
    assert found.kind is RecordKind.REGISTERED
    store.close()


def _forget_kinds(store: TaskStore) -> None:
    """Leave the records as they were before kinds were stored."""
    if isinstance(store, SqliteStore):
        with store.writing() as connection:
            connection.execute("UPDATE tasks SET kind = NULL")
    elif isinstance(store, MongoStore):
        store.tasks.update_many({}, {"$unset": {"kind": ""}})


def test_a_start_finds_tasks_that_an_earlier_version_has_resubmitted(factory: Factory) -> None:
    """Another host may run an earlier version during an upgrade."""
    store, first = factory(), make_running(never_resubmitted=True)
    other = make_running(never_resubmitted=True)
    for record in (first, other):
        store.add_record(record)
    if isinstance(store, MongoStore):
        again = record_to_document(make_running(resubmitted_from=first.uuid))
        store.tasks.insert_one(again)  # as an earlier version does
    later = factory()
    assert not later.find_by_uuids([first.uuid])[first.uuid].never_resubmitted
    assert later.find_by_uuids([other.uuid])[other.uuid].never_resubmitted == isinstance(store, MongoStore)
