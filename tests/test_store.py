"""The promises of TaskStore, each kept by every store."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import DuplicateUuid, StoreUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, TaskRecord
from app.store import Claim, Outcome, TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.real.mongod import Mongod
from tests.tasks import make_task, new_uuid

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)

Factory = Callable[[], TaskStore]


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    """Makes stores on one and the same database, as several processes would."""
    made: list[TaskStore] = []
    if request.param == "sqlite":
        make: Factory = lambda: SqliteStore(tmp_path / "store.sqlite3")  # noqa: E731
    else:
        mongod: Mongod = request.getfixturevalue("mongod")
        database = f"test_{new_uuid()}"
        make = lambda: MongoStore(connect(mongod.uri, 5), database, "jobs")  # noqa: E731

    def prepared() -> TaskStore:
        store = make()
        store.prepare()
        made.append(store)
        return store

    yield prepared
    if request.param == "mongodb":
        client = connect(mongod.uri, 5)
        client.drop_database(database)
        client.close()
    for store in made:
        store.close()


@pytest.fixture
def store(factory: Factory) -> TaskStore:
    return factory()


def make_record(**fields: Any) -> TaskRecord:
    task = fields.pop("task", None) or make_task()
    base = {"task": task, "slurm_username": task["username"], "created_at": NOW, "updated_at": NOW}
    return TaskRecord.model_validate({**base, **fields})


def make_running(**fields: Any) -> TaskRecord:
    return make_record(**{"slurm_job_id": 7, "slurm_job_state": JobState.RUNNING, **fields})


def make_notification(method: str = "email", **fields: Any) -> Notification:
    base = {
        "id": new_uuid(),
        "event": "end",
        "method": method,
        "params": {"recipient": "someone@example.com", "$odd.key": [1, 2.5, None]},
        "content": {"subject": "s", "words": "w", "facts": {"cpus": 2, "cpu_efficiency": 0.5}},
        "status": NotificationStatus.DUE,
        "created_at": NOW,
        "attempt_after": NOW,
    }
    return Notification.model_validate({**base, **fields})


def find(store: TaskStore, uuid: str) -> TaskRecord | None:
    return store.by_uuids([uuid]).get(uuid)


def fence_of(store: TaskStore) -> int:
    fence = store.lead("the tests", NOW, NOW)
    assert fence is not None
    return fence


def end(record: TaskRecord, *notifications: Notification) -> Change:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.FAILED, exit_code=3, submit_time=NOW)
    return Change(record.uuid, JobState.RUNNING, JobState.FAILED, LATER, job, notifications)


def test_a_task_comes_back_verbatim(store: TaskStore) -> None:
    odd = {"b": 1, "a": [1.0, 2**62, -0.5, None, True, "ünï\u2028\n"], "$x.y": {"": {}}, "n": 1e300}
    task = make_task(zz=odd, aa="last")
    store.add(make_record(task=task))
    record = find(store, task["uuid"])
    assert record is not None
    assert record.task == task
    assert list(record.task) == list(task)
    assert list(record.task["zz"]) == list(odd)
    assert [type(value) for value in record.task["zz"]["a"]] == [type(value) for value in odd["a"]]  # type: ignore[attr-defined]


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
    record = make_running(job=job, notifications=(notification,))
    store.add(record)
    assert find(store, record.uuid) == record
    assert store.by_job_id(7) == record


def test_a_uuid_is_taken_for_ever(store: TaskStore) -> None:
    record = make_running()
    store.add(record)
    with pytest.raises(DuplicateUuid) as caught:
        store.add(make_record(task=record.task))
    assert caught.value.slurm_job_id == 7
    assert find(store, record.uuid) == record


def test_one_of_many_wins_a_uuid(factory: Factory) -> None:
    task = make_task()
    stores = [factory() for _ in range(8)]
    barrier = threading.Barrier(8)

    def attempt(store: TaskStore) -> bool:
        barrier.wait(10)
        try:
            store.add(make_record(task=task))
        except DuplicateUuid:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, stores)) == 1


def test_a_reservation_can_be_released_and_taken_again(store: TaskStore) -> None:
    record = make_record()
    store.add(record)
    assert store.reservations(LATER) == [record]
    assert store.reservations(NOW) == []
    store.release(record)
    assert find(store, record.uuid) is None
    store.add(record)


def test_only_a_reservation_can_be_released(store: TaskStore) -> None:
    record = make_running()
    store.add(record)
    store.release(record)
    assert find(store, record.uuid) == record


def test_a_reservation_is_accepted_once(store: TaskStore) -> None:
    record = make_record()
    store.add(record)
    assert store.open_jobs() == []
    assert store.accept(record, 12, JobState.PENDING, LATER)
    assert not store.accept(record, 13, JobState.PENDING, LATER)
    assert not store.accept(make_record(), 13, JobState.PENDING, LATER)
    accepted = store.by_job_id(12)
    assert accepted is not None
    assert (accepted.slurm_job_state, accepted.updated_at) == (JobState.PENDING, LATER)
    assert [job.slurm_job_id for job in store.open_jobs()] == [12]
    assert store.reservations(LATER) == []


def test_a_failed_submission_gives_its_place_up(store: TaskStore) -> None:
    record = make_record(idempotency_key="k")
    store.add(record)
    assert store.fail(record, "why", LATER)
    assert not store.fail(record, "again", LATER)
    found = find(store, record.uuid)
    assert found is not None
    assert (found.submission_error, found.is_reserved, found.idempotency_key) == ("why", False, None)
    assert store.reservations(LATER) == []
    successor = make_record(task=record.task, created_at=LATER, idempotency_key="k")
    store.add(successor)
    assert find(store, record.uuid) == successor
    assert store.reservations(LATER + timedelta(seconds=1)) == [successor]
    assert not store.fail(record, "the old one's", LATER)
    assert not store.accept(record, 12, JobState.PENDING, LATER)
    store.release(record)
    assert find(store, record.uuid) == successor
    with pytest.raises(DuplicateUuid):
        store.add(record)


def test_a_failed_submission_that_has_a_job_after_all_is_its_record(store: TaskStore) -> None:
    record = make_record()
    store.add(record)
    store.fail(record, "why", LATER)
    assert store.accept(record, 12, JobState.PENDING, LATER, ["careful"])
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_id, found.submission_error, found.warnings) == (12, None, ("careful",))


def test_a_key_is_taken_once(store: TaskStore) -> None:
    record = make_record(idempotency_key="k")
    store.add(record)
    store.accept(record, 12, JobState.PENDING, LATER)
    with pytest.raises(DuplicateUuid) as caught:
        store.add(make_record(idempotency_key="k"))
    assert caught.value.slurm_job_id == 12
    for _ in range(2):  # no key is no key
        store.add(make_record())
    found = store.by_idempotency_key("k")
    assert found is not None
    assert found.uuid == record.uuid
    assert store.by_idempotency_key("another") is None
    failed = make_record()
    store.add(failed)
    store.fail(failed, "why", LATER)
    with pytest.raises(DuplicateUuid):
        store.add(make_record(task=failed.task, idempotency_key="k"))


def test_a_submission_that_cannot_be_told_ends_as_unknown(store: TaskStore) -> None:
    record = make_record()
    store.add(record)
    change = Change(
        record.uuid, None, JobState.UNKNOWN, LATER, None, (make_notification(),), submission_error="why"
    )
    assert store.apply([change], fence_of(store)) == 1
    assert store.apply([change], fence_of(store)) == 0
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_state, found.submission_error) == (JobState.UNKNOWN, "why")
    assert len(found.notifications) == 1
    assert store.reservations(LATER) == store.open_jobs() == []
    with pytest.raises(DuplicateUuid):
        store.add(record)


def test_a_leader_of_the_past_writes_nothing(factory: Factory) -> None:
    old, new = factory(), factory()
    running, reserved = make_running(), make_record()
    for record in (running, reserved):
        old.add(record)
    past = old.lead("old", NOW, NOW)
    assert past is not None
    assert new.lead("new", LATER, LATER) == past + 1
    unknown = Change(reserved.uuid, None, JobState.UNKNOWN, LATER, None)
    assert old.apply([end(running), unknown], past) == 0
    assert new.apply([end(running), unknown], past + 1) == 2


def test_the_fence_grows_with_each_change_of_leader_alone(store: TaskStore) -> None:
    minute = timedelta(minutes=1)
    first = store.lead("a", NOW, NOW)
    assert first is not None
    assert store.lead("a", NOW, NOW) == first
    store.resign("a")
    assert store.lead("a", NOW, NOW) == first + 1
    assert store.lead("b", NOW + minute, NOW + minute) == first + 2


def test_of_several_records_of_a_job_id_the_newest_counts(store: TaskStore) -> None:
    store.add(make_running(created_at=NOW))
    newer = make_running(created_at=LATER)
    store.add(newer)
    store.add(make_running(created_at=NOW - timedelta(days=1)))
    found = store.by_job_id(7)
    assert found is not None
    assert found.uuid == newer.uuid
    assert store.by_job_id(8) is None


def test_a_cycle_reads_open_jobs_alone(store: TaskStore) -> None:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.RUNNING, submit_time=NOW)
    record = make_running(job=job)
    store.add(record)
    store.add(make_running(slurm_job_state=JobState.COMPLETED))
    store.add(make_running(slurm_job_state=JobState.UNKNOWN))
    store.add(make_record())
    (found,) = store.open_jobs()
    assert (found.uuid, found.slurm_job_state, found.submit_time) == (record.uuid, JobState.RUNNING, NOW)


def test_a_change_and_its_notifications_are_one_write(store: TaskStore) -> None:
    record = make_running()
    store.add(record)
    change = end(record, make_notification("email"), make_notification("test"))
    assert store.apply([change], fence_of(store)) == 1
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_state, found.updated_at) == (JobState.FAILED, LATER)
    assert found.job is not None
    assert found.job.exit_code == 3
    assert [item.method for item in found.notifications] == ["email", "test"]
    assert store.open_jobs() == []


def test_a_change_is_applied_once(store: TaskStore) -> None:
    record = make_running()
    store.add(record)
    store.apply([end(record, make_notification())], fence_of(store))
    assert store.apply([end(record, make_notification())], fence_of(store)) == 0
    found = find(store, record.uuid)
    assert found is not None
    assert len(found.notifications) == 1


def test_many_changes_are_one_call_and_the_stale_ones_are_left_out(store: TaskStore) -> None:
    records = [make_running(slurm_job_id=number) for number in range(20)]
    for record in records:
        store.add(record)
    store.apply([end(records[0])], fence_of(store))
    assert store.apply([end(record) for record in records], fence_of(store)) == 19
    assert store.apply([], fence_of(store)) == 0


def claim(store: TaskStore, token: str = "me", now: datetime = NOW, method: str = "email") -> Claim | None:
    return store.claim(method, token, now, now + timedelta(minutes=1))


def test_a_claim_keeps_others_away_until_it_expires(store: TaskStore) -> None:
    store.add(make_running(notifications=(make_notification(),)))
    mine = claim(store)
    assert mine is not None
    assert mine.notification.status is NotificationStatus.CLAIMED
    assert mine.notification.attempts == 1
    assert claim(store, "other") is None
    theirs = claim(store, "other", NOW + timedelta(minutes=1))
    assert theirs is not None
    assert theirs.notification.id == mine.notification.id
    assert not store.settle(mine, Outcome(NotificationStatus.SENT, LATER))
    assert store.settle(theirs, Outcome(NotificationStatus.SENT, LATER))


def test_a_claim_is_by_method_and_not_before_its_time(store: TaskStore) -> None:
    store.add(make_running(notifications=(make_notification("test"), make_notification(attempt_after=LATER))))
    assert claim(store) is None
    assert claim(store, now=LATER) is not None
    found = claim(store, method="test")
    assert found is not None
    assert found.notification.method == "test"


def test_what_is_settled_stays_settled(store: TaskStore) -> None:
    record = make_running(notifications=(make_notification(), make_notification()))
    store.add(record)
    first, second = claim(store, "a"), claim(store, "b")
    assert first is not None
    assert second is not None
    assert store.settle(first, Outcome(NotificationStatus.SENT, LATER))
    assert store.settle(second, Outcome(NotificationStatus.DEAD, LATER, error="no such address"))
    assert claim(store, now=LATER + timedelta(days=9)) is None
    found = find(store, record.uuid)
    assert found is not None
    by_id = {item.id: item for item in found.notifications}
    assert by_id[first.notification.id].sent_at == LATER
    assert by_id[second.notification.id].last_error == "no such address"
    assert by_id[second.notification.id].sent_at is None


def test_a_failed_attempt_comes_again_at_its_time(store: TaskStore) -> None:
    store.add(make_running(notifications=(make_notification(),)))
    mine = claim(store)
    assert mine is not None
    store.settle(mine, Outcome(NotificationStatus.RETRYING, NOW, attempt_after=LATER, error="busy"))
    assert claim(store, now=LATER - timedelta(milliseconds=1)) is None
    again = claim(store, "again", LATER)
    assert again is not None
    assert again.notification.attempts == 2


def test_no_notification_is_claimed_twice(factory: Factory) -> None:
    stores = [factory() for _ in range(4)]
    for number in range(10):
        notifications = tuple(make_notification() for _ in range(10))
        stores[0].add(make_running(slurm_job_id=number, notifications=notifications))

    def take_all(store: TaskStore) -> list[str]:
        taken = []
        while (mine := claim(store, new_uuid())) is not None:
            taken.append(mine.notification.id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [item for items in pool.map(take_all, stores) for item in items]
    assert len(taken) == 100
    assert len(set(taken)) == 100


def test_one_leads_until_the_lease_runs_out(store: TaskStore) -> None:
    minute = timedelta(minutes=1)
    assert store.lead("a", NOW, NOW + minute)
    assert not store.lead("b", NOW, NOW + minute)
    assert store.lead("a", NOW + minute, NOW + 2 * minute)
    assert not store.lead("b", NOW + 2 * minute, NOW + 3 * minute)
    assert store.lead("b", NOW + 2 * minute + timedelta(milliseconds=1), NOW + 3 * minute)
    assert not store.lead("a", NOW + 2 * minute, NOW + 3 * minute)


def test_a_lease_can_be_given_back_by_its_owner_alone(store: TaskStore) -> None:
    store.lead("a", NOW, LATER)
    store.resign("b")
    assert not store.lead("b", NOW, LATER)
    store.resign("a")
    assert store.lead("b", NOW, LATER)


def test_preparing_again_keeps_everything(factory: Factory) -> None:
    record = make_running()
    factory().add(record)
    assert find(factory(), record.uuid) == record


def test_a_store_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    stores: list[TaskStore] = [
        SqliteStore(tmp_path / "no such folder" / "x.sqlite3"),
        MongoStore(connect("mongodb://127.0.0.1:9/", 0.2), "x", "y"),
    ]
    for store in stores:
        for ask in (store.prepare, store.ping, store.open_jobs):
            with pytest.raises(StoreUnavailable):
                ask()
        store.close()
