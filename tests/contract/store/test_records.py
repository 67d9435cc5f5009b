"""Records of tasks and their jobs, in every store."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, NotificationStatus, RecordKind
from app.models.record_state import RecordState
from app.slurm.reading import read_controller_job
from app.slurm.reply import read_json
from app.store import TaskStore
from app.store.sqlite import SqliteStore
from tests.support.databases import SharedDatabase
from tests.support.stores import (
    LATER,
    NOW,
    Factory,
    claim,
    end,
    fence_of,
    find,
    make_notification,
    make_record,
    make_running,
)
from tests.support.tasks import make_task


def test_a_task_comes_back_verbatim(store: TaskStore) -> None:
    odd = {"b": 1, "a": [1.0, 2**62, -0.5, None, True, "ünï\u2028\n"], "$x.y": {"": {}}, "n": 1e300}
    task = make_task(zz=odd, aa="last")
    store.add_record(make_record(task=task))
    record = find(store, task["uuid"])
    assert record is not None
    assert record.task == task
    assert list(record.task) == list(task)
    assert list(record.task["zz"]) == list(odd)
    assert [type(value) for value in record.task["zz"]["a"]] == [type(value) for value in odd["a"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "odd",
    [
        {"$ref": "a", "$id": "b"},
        {"$id": 1, "$ref": "x", "more": {"$ref": "y", "$id": {"$db": "z"}}},
        {"$$ref": 1, "$ref": 2, "$$$id": 3, "ref": 4, "$": 5, "$$": 6, "$refs": 7},
        [{"$ref": "a", "$id": "b", "$db": "c"}],
    ],
)
def test_keys_with_a_meaning_for_the_database_come_back_verbatim(store: TaskStore, odd: Any) -> None:
    task = make_task(meta=odd)
    record = make_running(task=task, notifications=(make_notification(params={"body": odd}),))
    store.add_record(record)
    found = find(store, record.uuid)
    assert found == record
    assert json.dumps(found.task) == json.dumps(task)
    taken = claim(store)
    assert taken is not None
    assert taken.notification.params == {"body": odd}
    shown = store.find_notification(taken.notification.id)
    assert shown is not None
    assert shown.notification.params == {"body": odd}


def test_a_uuid_that_sounds_like_a_field_is_still_a_uuid(store: TaskStore) -> None:
    other = make_record()
    store.add_record(other)
    record = make_running(task=make_task(uuid="x.idempotency_key"), slurm_job_id=4711)
    store.add_record(record)
    with pytest.raises(DuplicateUuid) as taken:
        store.add_record(make_record(task=record.task))
    assert taken.value.slurm_job_id == 4711


def test_a_record_comes_back_whole(store: TaskStore) -> None:
    job = SlurmJob(
        job_id=7,
        username="alice",
        job_state=JobState.RUNNING,
        start_time=NOW,
        array_tasks={JobState.FAILED: 2},
    )
    notification = make_notification(
        status=NotificationStatus.UNDELIVERABLE, attempt_after=None, last_error="no"
    )
    record = make_running(job=job, notifications=(notification,), resubmitted_from="first")
    store.add_record(record)
    assert find(store, record.uuid) == record
    assert store.find_by_job_id(7) == record


def test_a_uuid_is_taken_for_ever(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    with pytest.raises(DuplicateUuid) as caught:
        store.add_record(make_record(task=record.task))
    assert caught.value.slurm_job_id == 7
    assert find(store, record.uuid) == record


def test_one_of_many_simultaneous_requests_gets_the_uuid(factory: Factory) -> None:
    task = make_task()
    stores = [factory() for _ in range(8)]
    barrier = threading.Barrier(8)

    def attempt(store: TaskStore) -> bool:
        barrier.wait(10)
        try:
            store.add_record(make_record(task=task))
        except DuplicateUuid:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, stores)) == 1


def test_of_several_records_of_a_job_id_the_newest_counts(store: TaskStore) -> None:
    store.add_record(make_running(created_at=NOW))
    newer = make_running(created_at=LATER)
    store.add_record(newer)
    store.add_record(make_running(created_at=NOW - timedelta(days=1)))
    found = store.find_by_job_id(7)
    assert found is not None
    assert found.uuid == newer.uuid
    assert store.find_by_job_id(8) is None


def test_a_cycle_reads_open_jobs_alone(store: TaskStore) -> None:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.RUNNING, submit_time=NOW)
    record = make_running(job=job)
    store.add_record(record)
    store.add_record(make_running(slurm_job_state=JobState.COMPLETED))
    store.add_record(make_running(slurm_job_state=JobState.UNKNOWN))
    store.add_record(make_record())
    (found,) = store.list_open_jobs()
    assert (found.uuid, found.slurm_job_state, found.submit_time) == (record.uuid, JobState.RUNNING, NOW)


def test_ended_since_returns_the_newest_ends_alone(store: TaskStore) -> None:
    ended = [make_running() for _ in range(4)]
    array = SlurmJob(
        job_id=7,
        username="alice",
        job_state=JobState.FAILED,
        array_tasks={JobState.FAILED: 2},
        submit_time=NOW,
    )
    for minutes, record in enumerate(ended):
        store.add_record(record)
        change = replace(end(record), at=NOW + timedelta(minutes=minutes))
        store.apply_changes([replace(change, job=array) if minutes == 2 else change], fence_of(store))
    store.add_record(make_running(slurm_job_state=JobState.UNKNOWN, updated_at=LATER))
    store.add_record(make_running(updated_at=LATER))
    store.add_record(make_record(updated_at=LATER))
    found = store.list_ended_jobs(NOW + timedelta(minutes=1), 2)
    assert [job.uuid for job in found] == [ended[3].uuid, ended[2].uuid]
    assert [job.is_array for job in found] == [False, True]
    assert found[1].submit_time == NOW
    assert found[0].slurm_job_state is JobState.FAILED
    assert len(store.list_ended_jobs(NOW + timedelta(minutes=1), 10)) == 3


def test_an_ended_record_can_be_opened_again(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    store.apply_changes([end(record)], fence_of(store))
    again = replace(end(record), before=JobState.FAILED, after=JobState.PENDING)
    assert store.apply_changes([again], fence_of(store)) == 1
    assert [job.uuid for job in store.list_open_jobs()] == [record.uuid]
    assert store.list_ended_jobs(NOW - timedelta(days=1), 10) == []


def test_a_former_leader_does_not_reopen_a_record_that_has_ended(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    first = store.acquire_lease("first", NOW, NOW)
    assert first is not None
    store.apply_changes([end(record)], first)
    second = store.acquire_lease("second", LATER, LATER)
    assert second is not None
    again = replace(end(record), before=JobState.FAILED, after=JobState.PENDING)
    assert store.apply_changes([again], second) == 1
    assert store.apply_changes([replace(end(record), before=JobState.PENDING)], second) == 1
    assert store.apply_changes([again], first) == 0
    found = find(store, record.uuid)
    assert found is not None
    assert found.slurm_job_state is JobState.FAILED


def test_a_change_and_its_notifications_are_one_write(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    change = end(record, make_notification("email"), make_notification("test"))
    assert store.apply_changes([change], fence_of(store)) == 1
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_state, found.updated_at) == (JobState.FAILED, LATER)
    assert found.job is not None
    assert found.job.exit_code == 3
    assert [item.method for item in found.notifications] == ["email", "test"]
    assert store.list_open_jobs() == []


def test_a_change_is_applied_once(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    store.apply_changes([end(record, make_notification())], fence_of(store))
    assert store.apply_changes([end(record, make_notification())], fence_of(store)) == 0
    found = find(store, record.uuid)
    assert found is not None
    assert len(found.notifications) == 1


def test_many_changes_are_one_call_and_the_stale_ones_are_left_out(store: TaskStore) -> None:
    records = [make_running(slurm_job_id=number) for number in range(20)]
    for record in records:
        store.add_record(record)
    store.apply_changes([end(records[0])], fence_of(store))
    assert store.apply_changes([end(record) for record in records], fence_of(store)) == 19
    assert store.apply_changes([], fence_of(store)) == 0


def test_an_alarm_is_kept_and_read_in_every_cycle(store: TaskStore) -> None:
    record = make_running(alarm_at=NOW)
    store.add_record(record)
    assert [item.alarm_at for item in store.list_open_jobs()] == [NOW]
    change = Change(record.uuid, JobState.RUNNING, JobState.RUNNING, NOW, None, alarm_at=LATER)
    assert store.apply_changes([change], fence_of(store)) == 1
    assert [item.alarm_at for item in store.list_open_jobs()] == [LATER]


def test_the_jobs_in_flight_of_a_caller_are_counted(store: TaskStore) -> None:
    reserved = make_record(caller="key:a")
    store.add_record(reserved)
    running = make_running(caller="key:a")
    store.add_record(running)
    store.add_record(make_running(caller="key:b"))
    store.add_record(make_running())
    store.add_record(make_record(caller="key:a", slurm_job_id=3, slurm_job_state=JobState.COMPLETED))
    assert [store.count_open_tasks(name) for name in ("key:a", "key:b", "key:c")] == [2, 1, 0]
    store.apply_changes([end(running)], fence_of(store))
    store.fail_reservation(reserved, "it never reached Slurm", LATER)
    assert store.count_open_tasks("key:a") == 0
    assert find(store, reserved.uuid) == reserved.model_copy(
        update={"submission_error": "it never reached Slurm", "updated_at": LATER}
    )


@pytest.mark.parametrize("kind", RecordKind)
def test_the_kind_of_a_record_is_kept(store: TaskStore, kind: RecordKind) -> None:
    record = make_record(kind=kind)
    store.add_record(record)
    assert find(store, record.uuid) == record


def test_users_with_a_record_are_listed_once(store: TaskStore) -> None:
    assert store.list_usernames() == []
    for username in ("bob", "alice", "bob", "carol", "alice"):
        store.add_record(make_running(task=make_task(username=username)))
    assert sorted(store.list_usernames()) == ["alice", "bob", "carol"]


def test_a_page_of_a_state_reads_only_its_own_documents(mongo_database: SharedDatabase) -> None:
    store = mongo_database.store()
    store.prepare()
    for number in range(50):
        store.add_record(make_running(slurm_job_id=number + 1))
    for wanted in ({}, {"slurm_username": {"$in": ["alice", "bob"]}}):
        found = store.tasks.find({"slurm_job_state": "RUNNING", **wanted})
        plan = found.sort([("created_at", -1), ("_id", -1)]).limit(10).explain()
        assert plan["executionStats"]["totalDocsExamined"] <= 10
    store.close()


@pytest.mark.parametrize(
    "odd", [b"d\xe9", b"\xed\xa0\x80", b"\x00\x7f", rb"\ud800", rb"\u0000\n", rb"\ud83d"]
)
def test_a_job_with_odd_bytes_in_its_texts_is_kept_and_so_are_the_others(
    store: TaskStore, odd: bytes
) -> None:
    """slurmrestd sends what users gave to sbatch as it is."""
    records = [make_running(), make_running(slurm_job_id=8)]
    for record in records:
        store.add_record(record)
    texts = (
        "name",
        "comment",
        "current_working_directory",
        "standard_output",
        "nodes",
        "partition",
        "state_reason",
    )
    raw = {"job_id": 7, "user_name": "alice", "job_state": ["FAILED"], **dict.fromkeys(texts, "MARK")}
    job = read_controller_job(read_json(json.dumps(raw).encode().replace(b"MARK", odd)))
    changes = [replace(end(records[0]), job=job), end(records[1])]
    assert store.apply_changes(changes, fence_of(store)) == 2
    found = find(store, records[0].uuid)
    assert found is not None
    assert found.job == job
    assert found.job.name is not None
    assert "\ufffd" in found.job.name


def test_record_count_grows_with_each_record(store: TaskStore) -> None:
    assert store.count_records() == 0
    store.add_record(make_record())
    store.add_record(make_record())
    assert store.count_records() == 2


def test_record_count_of_a_file_without_tables_is_none(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    assert store.count_records() is None
    (tmp_path / "store.sqlite3").touch()
    assert store.count_records() is None
    store.close()


def test_states_are_those_of_the_records(store: TaskStore) -> None:
    records = [
        make_record(),
        make_record(submission_error="refused"),
        *(make_running(slurm_job_state=state) for state in JobState),
        make_record(slurm_job_state=JobState.UNKNOWN, submission_error="no job was found"),
    ]
    for record in records:
        store.add_record(record)
    found = store.find_states([record.uuid for record in records] + ["none"])
    assert found == {record.uuid: RecordState.of(record) for record in records}
    for record in records:
        assert found[record.uuid].has_ended == record.has_ended


def test_states_of_many_records_are_one_query(store: TaskStore) -> None:
    records = [make_running() for _ in range(20)]
    for record in records:
        store.add_record(record)
    uuids = [*(record.uuid for record in records), *(f"{'x' * 120}-{number}" for number in range(5000))]
    assert set(store.find_states(uuids)) == {record.uuid for record in records}
    assert store.find_states([]) == {}


def test_a_state_is_seen_by_other_processes_at_once(factory: Factory) -> None:
    here, there = factory(), factory()
    record = make_record()
    here.add_record(record)
    assert there.find_states([record.uuid])[record.uuid].is_reserved
    assert here.accept_job(record, 7, JobState.PENDING, NOW)
    assert there.find_states([record.uuid])[record.uuid] == RecordState(
        record.slurm_username, 7, JobState.PENDING, is_reserved=False
    )
    here.apply_changes([replace(end(record), before=JobState.PENDING)], fence_of(here))
    assert there.find_states([record.uuid])[record.uuid].has_ended
