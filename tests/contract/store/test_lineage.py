"""Which tasks repeat others, in every store."""

from datetime import timedelta
from typing import Any

import pytest

from app.job_state import JobState
from app.lifecycle.look_up import TaskLookup
from app.models.caller import OPERATOR
from app.models.record import TaskRecord
from app.store import TaskStore
from app.store.mongo import MongoStore
from app.store.transfer import Entry, record_to_json
from tests.support.databases import SharedDatabase
from tests.support.mongo_commands import make_observed_store
from tests.support.stores import NOW, make_record, make_running
from tests.support.tasks import make_task


def test_resubmitted_tasks_are_found_by_their_source_the_newest_first(store: TaskStore) -> None:
    for number, username in enumerate(("alice", "bob", "alice")):
        task = {"uuid": f"again-{number}", "username": username}
        created_at = NOW + timedelta(seconds=number)
        store.add_record(make_running(task=task, resubmitted_from="first", created_at=created_at))
    store.add_record(make_record(resubmitted_from="second"))
    store.add_record(make_record())
    assert store.list_resubmissions("first", 2) == [("again-2", "alice"), ("again-1", "bob")]
    assert [uuid for uuid, _ in store.list_resubmissions("first", 9)] == ["again-2", "again-1", "again-0"]
    assert store.list_resubmissions("third", 9) == []
    assert store.list_resubmissions("first", 2, ["alice", "carol"]) == [
        ("again-2", "alice"),
        ("again-0", "alice"),
    ]
    assert store.list_resubmissions("first", 9, []) == []


def is_marked_never_resubmitted(store: TaskStore, uuid: str) -> bool:
    return store.find_by_uuids([uuid])[uuid].never_resubmitted


def test_no_record_says_that_it_was_never_resubmitted_once_it_was(store: TaskStore) -> None:
    """A store may be unsure whether a task was resubmitted, and SQLite always is."""
    first, other = make_running(never_resubmitted=True), make_running(never_resubmitted=True)
    for record in (first, other):
        store.add_record(record)
    assert is_marked_never_resubmitted(store, first.uuid) == isinstance(store, MongoStore)
    store.add_record(make_record(resubmitted_from=first.uuid))
    assert not is_marked_never_resubmitted(store, first.uuid)
    assert is_marked_never_resubmitted(store, other.uuid) == isinstance(store, MongoStore)


def test_an_imported_record_makes_its_source_a_resubmitted_one(store: TaskStore) -> None:
    first = make_running(never_resubmitted=True)
    store.add_record(first)
    imported = make_running(resubmitted_from=first.uuid, never_resubmitted=True)
    store.import_entries([Entry(TaskRecord.model_validate(record_to_json(imported)))])
    assert not is_marked_never_resubmitted(store, first.uuid)
    assert not is_marked_never_resubmitted(store, imported.uuid), (
        "its resubmission may be in the store already"
    )


def test_a_record_in_place_of_a_failed_one_may_have_been_resubmitted(store: TaskStore) -> None:
    failed = make_record(never_resubmitted=True)
    store.add_record(failed)
    store.fail_reservation(failed, "why", NOW)
    store.add_record(make_record(resubmitted_from=failed.uuid))
    store.add_record(failed)
    assert not is_marked_never_resubmitted(store, failed.uuid)


@pytest.mark.real
def test_look_up_of_a_task_that_was_never_resubmitted_is_one_query(mongo_database: SharedDatabase) -> None:
    store, seen = make_observed_store(mongo_database, "find", "aggregate")
    record = make_record(slurm_job_id=7, slurm_job_state=JobState.COMPLETED, never_resubmitted=True)
    store.add_record(record)
    facts: Any = None  # the job has ended
    lookup = TaskLookup(store, facts)
    for look_up, word in ((lookup.find_by_job_id, "7"), (lookup.find_by_uuid, record.uuid)):
        seen.commands.clear()
        look_up(OPERATOR, word)
        assert len(seen.commands) == 1
    store.add_record(make_record(task=make_task(uuid="again"), resubmitted_from=record.uuid))
    seen.commands.clear()
    assert lookup.find_by_uuid(OPERATOR, record.uuid).monitor.resubmitted_as == ["again"]
    assert len(seen.commands) == 2
    store.close()


def test_a_record_keeps_where_its_task_comes_from(store: TaskStore) -> None:
    record = make_record(resubmitted_from="first")
    store.add_record(record)
    assert store.find_by_uuids([record.uuid])[record.uuid].resubmitted_from == "first"
    store.release_reservation(record)
    assert store.list_resubmissions("first", 9) == []


def test_a_record_keeps_the_defaults_of_the_catalogue(store: TaskStore) -> None:
    defaults = {"slurm": {"mem": "4G", "environment": {"A": "1"}}, "dirs": {"output": "/o"}}
    for wanted in (defaults, {}):
        record = make_record(defaults=wanted)
        store.add_record(record)
        found = store.find_by_uuids([record.uuid])[record.uuid]
        assert found.defaults == wanted
        assert found.task == record.task
