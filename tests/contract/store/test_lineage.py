"""Which tasks repeat others, in every store."""

from datetime import timedelta

from app.store import TaskStore
from tests.support.stores import NOW, make_record, make_running


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
