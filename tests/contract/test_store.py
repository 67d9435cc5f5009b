"""The promises of TaskStore, each kept by every store."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import DuplicateUuid, StoreUnavailable
from app.job_state import JobState
from app.models.api_key import ApiKey
from app.models.caller import OPERATOR, ORDINARY_SCOPES, Grant
from app.models.job import SlurmJob
from app.models.record import JOB_TAG, Change, Notification, NotificationStatus, RecordKind, TaskRecord
from app.slurm.reading import read_controller_job
from app.slurm.reply import read_json
from app.store import TaskStore
from app.store.clock import CLOCK_TOLERANCE
from app.store.mongo import MongoStore, connect
from app.store.notification_queue import Claim, Outcome, StoredNotification
from app.store.sqlite import SqliteStore
from tests.conftest import USES_MONGOMOCK
from tests.support.databases import SharedDatabase
from tests.support.mongomock_server import MongomockServer, mark_unsupported
from tests.support.tasks import make_task, new_uuid

NOW = datetime(2099, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)  # MongoDB removes rate windows that have passed
LATER = NOW + timedelta(minutes=5)

Factory = Callable[[], TaskStore]


@pytest.fixture(params=["sqlite", "mongomock", pytest.param("mongodb", marks=pytest.mark.real)])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    """Makes stores on one and the same database, as several processes would."""
    made: list[TaskStore] = []
    if request.param == "sqlite":
        make: Factory = lambda: SqliteStore(tmp_path / "store.sqlite3")  # noqa: E731
    elif request.param == "mongomock":
        mark_unsupported(request)
        request.config.stash[USES_MONGOMOCK] = True
        server = MongomockServer()
        make = lambda: MongoStore(server.connect(), "test", "jobs")  # noqa: E731
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        make = database.store

    def prepared() -> TaskStore:
        store = make()
        store.prepare()
        made.append(store)
        return store

    yield prepared
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
    return store.find_by_uuids([uuid]).get(uuid)


def fence_of(store: TaskStore) -> int:
    fence = store.acquire_lease("the tests", NOW, NOW)
    assert fence is not None
    return fence


def end(record: TaskRecord, *notifications: Notification) -> Change:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.FAILED, exit_code=3, submit_time=NOW)
    return Change(record.uuid, JobState.RUNNING, JobState.FAILED, LATER, job, notifications)


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
def test_what_a_database_takes_for_its_own_comes_back_verbatim(store: TaskStore, odd: Any) -> None:
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


def test_one_of_many_wins_a_uuid(factory: Factory) -> None:
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


def test_a_reservation_can_be_released_and_taken_again(store: TaskStore) -> None:
    record = make_record()
    store.add_record(record)
    assert store.list_reservations(LATER) == [record]
    assert store.list_reservations(NOW) == []
    store.release_reservation(record)
    assert find(store, record.uuid) is None
    store.add_record(record)


def test_only_a_reservation_can_be_released(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    store.release_reservation(record)
    assert find(store, record.uuid) == record


def test_a_reservation_is_accepted_once(store: TaskStore) -> None:
    record = make_record()
    store.add_record(record)
    assert store.list_open_jobs() == []
    assert store.accept_job(record, 12, JobState.PENDING, LATER)
    assert not store.accept_job(record, 13, JobState.PENDING, LATER)
    assert not store.accept_job(make_record(), 13, JobState.PENDING, LATER)
    accepted = store.find_by_job_id(12)
    assert accepted is not None
    assert (accepted.slurm_job_state, accepted.updated_at) == (JobState.PENDING, LATER)
    assert [job.slurm_job_id for job in store.list_open_jobs()] == [12]
    assert store.list_reservations(LATER) == []


def test_a_failed_submission_gives_its_place_up(store: TaskStore) -> None:
    record = make_record(idempotency_key="k")
    store.add_record(record)
    assert store.fail_reservation(record, "why", LATER)
    assert not store.fail_reservation(record, "again", LATER)
    found = find(store, record.uuid)
    assert found is not None
    assert (found.submission_error, found.is_reserved, found.idempotency_key) == ("why", False, None)
    assert store.list_reservations(LATER) == []
    successor = make_record(task=record.task, created_at=LATER, idempotency_key="k")
    store.add_record(successor)
    assert find(store, record.uuid) == successor
    assert store.list_reservations(LATER + timedelta(seconds=1)) == [successor]
    assert not store.fail_reservation(record, "the old one's", LATER)
    assert not store.accept_job(record, 12, JobState.PENDING, LATER)
    store.release_reservation(record)
    assert find(store, record.uuid) == successor
    with pytest.raises(DuplicateUuid):
        store.add_record(record)


def test_a_failed_submission_that_has_a_job_after_all_is_its_record(store: TaskStore) -> None:
    record = make_record()
    store.add_record(record)
    store.fail_reservation(record, "why", LATER)
    assert store.accept_job(record, 12, JobState.PENDING, LATER, ["careful"])
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_id, found.submission_error, found.warnings) == (12, None, ("careful",))


def test_a_key_is_taken_once(store: TaskStore) -> None:
    record = make_record(idempotency_key="k")
    store.add_record(record)
    store.accept_job(record, 12, JobState.PENDING, LATER)
    with pytest.raises(DuplicateUuid) as caught:
        store.add_record(make_record(idempotency_key="k"))
    assert caught.value.slurm_job_id == 12
    for _ in range(2):  # no key is no key
        store.add_record(make_record())
    found = store.find_by_idempotency_key("k")
    assert found is not None
    assert found.uuid == record.uuid
    assert store.find_by_idempotency_key("another") is None
    failed = make_record()
    store.add_record(failed)
    store.fail_reservation(failed, "why", LATER)
    with pytest.raises(DuplicateUuid):
        store.add_record(make_record(task=failed.task, idempotency_key="k"))


def test_a_submission_that_cannot_be_told_ends_as_unknown(store: TaskStore) -> None:
    record = make_record()
    store.add_record(record)
    change = Change(
        record.uuid,
        None,
        JobState.UNKNOWN,
        LATER,
        None,
        (make_notification(),),
        submission_error="why",
        reserved_at=record.created_at,
    )
    later = replace(change, reserved_at=LATER)
    assert store.apply_changes([later], fence_of(store)) == 0, (
        "it is about another reservation of the same uuid"
    )
    assert store.apply_changes([change], fence_of(store)) == 1
    assert store.apply_changes([change], fence_of(store)) == 0
    found = find(store, record.uuid)
    assert found is not None
    assert (found.slurm_job_state, found.submission_error) == (JobState.UNKNOWN, "why")
    assert len(found.notifications) == 1
    assert store.list_reservations(LATER) == []
    assert store.list_open_jobs() == []
    with pytest.raises(DuplicateUuid):
        store.add_record(record)


def test_a_leader_of_the_past_writes_nothing(factory: Factory) -> None:
    old, new = factory(), factory()
    running, reserved = make_running(), make_record()
    for record in (running, reserved):
        old.add_record(record)
    past = old.acquire_lease("old", NOW, NOW)
    assert past is not None
    assert new.acquire_lease("new", LATER, LATER) == past + 1
    unknown = Change(reserved.uuid, None, JobState.UNKNOWN, LATER, None, reserved_at=reserved.created_at)
    assert old.apply_changes([end(running), unknown], past) == 0
    assert new.apply_changes([end(running), unknown], past + 1) == 2


def test_the_fence_grows_with_each_change_of_leader_alone(store: TaskStore) -> None:
    minute = timedelta(minutes=1)
    first = store.acquire_lease("a", NOW, NOW)
    assert first is not None
    assert store.acquire_lease("a", NOW, NOW) == first
    store.release_lease("a")
    assert store.acquire_lease("a", NOW, NOW) == first + 1
    assert store.acquire_lease("b", NOW + minute, NOW + minute) == first + 2


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


def test_a_deposed_leader_does_not_open_a_record_that_ended_again(store: TaskStore) -> None:
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


def claim(store: TaskStore, token: str = "me", now: datetime = NOW, method: str = "email") -> Claim | None:
    return store.claim(method, token, now, now + timedelta(minutes=1))


def test_a_claim_keeps_others_away_until_it_expires(store: TaskStore) -> None:
    store.add_record(make_running(notifications=(make_notification(),)))
    mine = claim(store)
    assert mine is not None
    assert mine.notification.status is NotificationStatus.CLAIMED
    assert mine.notification.attempts == 1
    assert claim(store, "other") is None
    theirs = claim(store, "other", NOW + timedelta(minutes=1))
    assert theirs is not None
    assert theirs.notification.id == mine.notification.id
    assert not store.settle(mine, Outcome(NotificationStatus.DEAD, LATER))
    assert store.settle(mine, Outcome(NotificationStatus.SENT, LATER)), (
        "it has gone out, whoever claims it now"
    )
    assert not store.settle(theirs, Outcome(NotificationStatus.SENT, LATER))
    assert claim(store, "a third", NOW + timedelta(hours=1)) is None


def test_a_claim_is_by_method_and_not_before_its_time(store: TaskStore) -> None:
    store.add_record(
        make_running(notifications=(make_notification("test"), make_notification(attempt_after=LATER)))
    )
    assert claim(store) is None
    assert claim(store, now=LATER) is not None
    found = claim(store, method="test")
    assert found is not None
    assert found.notification.method == "test"


def test_what_is_settled_stays_settled(store: TaskStore) -> None:
    record = make_running(notifications=(make_notification(), make_notification()))
    store.add_record(record)
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
    store.add_record(make_running(notifications=(make_notification(),)))
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
        stores[0].add_record(make_running(slurm_job_id=number, notifications=notifications))

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
    assert store.acquire_lease("a", NOW, NOW + minute)
    assert not store.acquire_lease("b", NOW, NOW + minute)
    assert store.acquire_lease("a", NOW + minute, NOW + 2 * minute)
    assert not store.acquire_lease("b", NOW + 2 * minute, NOW + 3 * minute)
    assert store.acquire_lease("b", NOW + 2 * minute + timedelta(milliseconds=1), NOW + 3 * minute)
    assert not store.acquire_lease("a", NOW + 2 * minute, NOW + 3 * minute)


@pytest.mark.parametrize("seconds", [60, 100, 180, 240, 3600])
def test_a_lease_that_ends_later_than_it_can_is_taken_over_and_logged(
    store: TaskStore, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    """Its owner's clock was ahead, or the clock has been set back since."""
    lease, ahead = timedelta(seconds=30), timedelta(seconds=seconds)
    first = store.acquire_lease("a", NOW + ahead, NOW + ahead + lease)
    assert first
    assert store.acquire_lease("b", NOW, NOW + lease) == first + 1
    assert "the monitor's lease until" in caplog.text
    assert store.acquire_lease("a", NOW, NOW + lease) is None


def test_a_lease_is_left_to_its_owner_while_clocks_differ_by_less_than_the_tolerance(
    store: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    lease = timedelta(seconds=30)
    assert store.acquire_lease("a", NOW + CLOCK_TOLERANCE, NOW + CLOCK_TOLERANCE + lease)
    assert store.acquire_lease("b", NOW, NOW + lease) is None
    assert caplog.text == ""


def test_a_lease_is_renewed_by_its_owner_after_the_clock_was_set_back(store: TaskStore) -> None:
    hour, lease = timedelta(hours=1), timedelta(seconds=30)
    fence = store.acquire_lease("a", NOW + hour, NOW + hour + lease)
    assert store.acquire_lease("a", NOW, NOW + lease) == fence
    assert store.acquire_lease("b", NOW + 2 * lease, NOW + 3 * lease) == (fence or 0) + 1


@pytest.mark.parametrize("seconds", [60, 100, 180, 240, 3600])
def test_a_claim_that_ends_later_than_it_can_is_taken_over_and_logged(
    store: TaskStore, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    """The process that made it has died, and the clock has been set back since."""
    item, ahead, time_to_send = make_notification(), timedelta(seconds=seconds), timedelta(seconds=20)
    store.add_record(make_running(notifications=[item]))
    assert store.claim("email", "first", NOW + ahead, NOW + ahead + time_to_send)
    latest = NOW + timedelta(hours=1)
    assert store.claim("email", "second", NOW, NOW + time_to_send, latest)
    assert f"the wait of message {item.id}" in caplog.text
    assert store.claim("email", "third", NOW, NOW + time_to_send, latest) is None
    assert store.claim("slack", "other", NOW, NOW + time_to_send, latest) is None


def test_a_message_waits_no_longer_than_it_can(store: TaskStore) -> None:
    hour, time_to_send = timedelta(hours=1), timedelta(seconds=20)
    retrying: dict[str, Any] = {"status": NotificationStatus.RETRYING, "attempts": 3}
    ordinary = make_notification(attempt_after=NOW + hour, **retrying)
    wrong = make_notification(attempt_after=NOW + 24 * hour, **retrying)
    store.add_record(make_running(notifications=[ordinary, wrong]))
    claim = store.claim("email", "a", NOW, NOW + time_to_send, NOW + hour)
    assert claim is not None
    assert claim.notification.id == wrong.id
    assert store.claim("email", "b", NOW, NOW + time_to_send, NOW + hour) is None


def test_a_reservation_from_what_is_now_the_future_is_found(store: TaskStore) -> None:
    """It was made before the clock was set back."""
    record = make_record(created_at=LATER)
    store.add_record(record)
    assert store.list_reservations(NOW) == []
    assert store.list_reservations(NOW, NOW + timedelta(seconds=5)) == [record]


def test_stores_of_one_database_tell_the_same_time(factory: Factory) -> None:
    one, other = factory(), factory()
    difference = other.now() - one.now()
    assert abs(difference) < CLOCK_TOLERANCE
    assert one.now().microsecond % 1000 == 0
    assert abs(one.now() - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_lease_can_be_given_back_by_its_owner_alone(store: TaskStore) -> None:
    store.acquire_lease("a", NOW, LATER)
    store.release_lease("b")
    assert not store.acquire_lease("b", NOW, LATER)
    store.release_lease("a")
    assert store.acquire_lease("b", NOW, LATER)


def test_preparing_again_keeps_everything(factory: Factory) -> None:
    record = make_running()
    factory().add_record(record)
    assert find(factory(), record.uuid) == record


def test_a_store_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    stores: list[TaskStore] = [
        SqliteStore(tmp_path / "no such folder" / "x.sqlite3"),
        MongoStore(connect("mongodb://127.0.0.1:9/", 0.2), "x", "y"),
    ]
    for store in stores:
        for ask in (store.prepare, store.ping, store.list_open_jobs):
            with pytest.raises(StoreUnavailable):
                ask()
        store.close()


# --- gathering -------------------------------------------------------------------------------

ANN = "email:ann@example.com"


def held_back(store: TaskStore, count: int, opens: datetime = LATER) -> list[Notification]:
    """So many notifications that were claimed, and held back until a window opens."""
    record = make_running(notifications=tuple(make_notification() for _ in range(count)))
    store.add_record(record)
    for number in range(count):
        mine = claim(store, f"hold {number}")
        assert mine is not None
        outcome = Outcome(NotificationStatus.GATHERED, NOW, opens, None, ANN, was_attempt=False)
        assert store.settle(mine, outcome)
    found = find(store, record.uuid)
    assert found is not None
    return list(found.notifications)


def statuses(store: TaskStore, *ids: str) -> list[NotificationStatus]:
    found = [store.find_notification(id_) for id_ in ids]
    return [item.notification.status for item in found if item is not None]


def test_what_is_held_back_was_no_attempt_and_comes_when_its_window_opens(store: TaskStore) -> None:
    (item,) = held_back(store, 1)
    assert (item.status, item.attempts, item.recipient) == (NotificationStatus.GATHERED, 0, ANN)
    assert claim(store, now=LATER - timedelta(milliseconds=1)) is None
    assert claim(store, now=LATER) is not None


def test_one_brings_along_all_that_are_held_back_for_the_same_person(store: TaskStore) -> None:
    ids = {item.id for item in held_back(store, 5)}
    late = held_back(store, 1, LATER + timedelta(hours=1))[0]
    head = claim(store, now=LATER)
    assert head is not None
    id_, brought = store.form_digest(head, LATER, "digest-1")
    assert id_ == "digest-1"
    assert {item.notification.id for item in brought} == ids - {head.notification.id}
    assert claim(store, "other", LATER) is None, "none of them goes alone"
    assert store.settle(head, Outcome(NotificationStatus.SENT, LATER))
    assert set(statuses(store, *ids)) == {NotificationStatus.SENT}
    assert statuses(store, late.id) == [NotificationStatus.GATHERED]
    assert find_digests(store, ids) == {"digest-1"}


def find_digests(store: TaskStore, ids: set[str]) -> set[str | None]:
    found = [store.find_notification(id_) for id_ in ids]
    return {item.notification.digest for item in found if item is not None}


def test_a_digest_that_is_sent_again_holds_the_same(store: TaskStore) -> None:
    held_back(store, 3)
    head = claim(store, now=LATER)
    assert head is not None
    id_, brought = store.form_digest(head, LATER, "digest-1")
    first = {item.notification.id for item in brought}
    held_back(store, 2)
    again = claim(store, "after a crash", LATER + timedelta(minutes=1))
    while again is not None and again.notification.id != head.notification.id:
        again = claim(store, new_uuid(), LATER + timedelta(minutes=1))
    assert again is not None
    same, brought = store.form_digest(again, LATER + timedelta(minutes=1), "digest-2")
    assert same == id_ == "digest-1"
    assert {item.notification.id for item in brought} == first


def test_a_digest_that_dies_takes_along_what_it_holds_and_all_can_be_revived(store: TaskStore) -> None:
    ids = [item.id for item in held_back(store, 3)]
    head = claim(store, now=LATER)
    assert head is not None
    store.form_digest(head, LATER, "digest-1")
    store.settle(head, Outcome(NotificationStatus.DEAD, LATER, error="no such address"))
    dead = store.list_notifications(NotificationStatus.DEAD, None, 10)
    assert {item.notification.id for item in dead} == set(ids)
    assert {item.notification.last_error for item in dead} == {"no such address"}
    assert store.retry_dead(LATER) == 3
    assert find_digests(store, set(ids)) == {None}
    assert {claim(store, id_, LATER) is not None for id_ in ids} == {True}


class DiesAgain(MongoStore):
    """Whatever is revived is claimed and declared dead at once, as by a thread that delivers meanwhile."""

    looks = 0

    def _find_batch(self, wanted: dict[str, Any]) -> list[StoredNotification]:
        self.looks += 1
        while (claimed := claim(self, new_uuid(), LATER)) is not None:
            self.settle(claimed, Outcome(NotificationStatus.DEAD, LATER, error="again"))
        assert self.looks < 10
        return super()._find_batch(wanted)


@pytest.mark.real
def test_what_dies_again_is_not_revived_again_by_the_same_call(mongo_database: SharedDatabase) -> None:
    store = DiesAgain(connect(mongo_database.uri, 5), mongo_database.name, mongo_database.collection)
    store.prepare()
    store.add_record(make_running(notifications=(make_notification(),)))
    assert len(store._find_batch({"status": "dead"})) == 1
    assert store.retry_dead(LATER) == 1
    assert len(store.list_notifications(NotificationStatus.DEAD, None, 10)) == 1
    assert store.retry_dead(LATER + timedelta(seconds=1)) == 1
    store.close()


def test_a_digest_holds_what_is_for_the_same_person_by_the_same_method_alone(store: TaskStore) -> None:
    (mine,) = held_back(store, 1)
    other = make_running(notifications=(make_notification("gmail"), make_notification()))
    store.add_record(other)
    for method, group in (("gmail", ANN), ("email", "email:bob@example.com")):
        held = claim(store, new_uuid(), method=method)
        assert held is not None
        store.settle(held, Outcome(NotificationStatus.GATHERED, NOW, LATER, None, group, was_attempt=False))
    head = claim(store, now=LATER)
    while head is not None and head.notification.id != mine.id:
        head = claim(store, new_uuid(), now=LATER)
    assert head is not None
    assert store.form_digest(head, LATER, "digest-1") == ("digest-1", [])


def test_who_has_lost_his_claim_ties_nothing_and_ends_nothing(store: TaskStore) -> None:
    held_back(store, 3)
    late = claim(store, now=LATER)
    assert late is not None
    again = claim(store, "another", LATER + timedelta(minutes=1))
    while again is not None and again.notification.id != late.notification.id:
        again = claim(store, new_uuid(), LATER + timedelta(minutes=1))
    assert again is not None
    _, brought = store.form_digest(again, LATER + timedelta(minutes=1), "digest-1")
    assert store.form_digest(late, LATER + timedelta(minutes=1), "digest-2")[0] == "digest-1"
    assert not store.settle(late, Outcome(NotificationStatus.DEAD, LATER, error="no"))
    ids = [item.notification.id for item in brought]
    assert set(statuses(store, *ids)) <= {NotificationStatus.GATHERED}


def test_a_revived_head_leaves_its_dead_companions_alone(store: TaskStore) -> None:
    ids = [item.id for item in held_back(store, 3)]
    head = claim(store, now=LATER)
    assert head is not None
    store.form_digest(head, LATER, "digest-1")
    store.settle(head, Outcome(NotificationStatus.DEAD, LATER, error="no"))
    assert store.retry_dead(LATER, id_=head.notification.id) == 1
    again = claim(store, "again", LATER)
    assert again is not None
    assert again.notification.recipient is None
    others = [id_ for id_ in ids if id_ != head.notification.id]
    assert store.form_digest(again, LATER, "digest-2") == ("digest-2", [])
    assert set(statuses(store, *others)) == {NotificationStatus.DEAD}


def test_gathering_from_many_processes_brings_each_along_once(factory: Factory) -> None:
    stores = [factory() for _ in range(4)]
    ids = {item.id for item in held_back(stores[0], 40)}

    def send(store: TaskStore) -> list[str]:
        sent: list[str] = []
        while (head := claim(store, new_uuid(), LATER)) is not None:
            _, brought = store.form_digest(head, LATER, new_uuid())
            sent += [head.notification.id, *(item.notification.id for item in brought)]
            store.settle(head, Outcome(NotificationStatus.SENT, LATER))
        return sent

    with ThreadPoolExecutor(4) as pool:
        sent = [id_ for ids_ in pool.map(send, stores) for id_ in ids_]
    assert sorted(sent) == sorted(ids)


# --- the ceiling -----------------------------------------------------------------------------


def test_a_window_takes_so_many_and_says_when_the_next_one_opens(store: TaskStore) -> None:
    ends = NOW + timedelta(minutes=10)
    assert [store.acquire(ANN, 2, NOW, ends) for _ in range(3)] == [None, None, ends]
    assert store.acquire("email:bob@example.com", 2, NOW, ends) is None
    assert store.acquire(ANN, 2, ends - timedelta(milliseconds=1), ends + timedelta(minutes=10)) == ends
    assert store.acquire(ANN, 2, ends, ends + timedelta(minutes=10)) is None


@pytest.mark.parametrize("seconds", [60, 100, 180, 240, 3600])
def test_a_window_that_ends_later_than_it_can_is_begun_anew_and_logged(
    store: TaskStore, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    """The clock of the process that began it was ahead, or has been set back since."""
    minute, ahead = timedelta(minutes=1), timedelta(seconds=seconds)
    for _ in range(2):
        store.acquire(ANN, 1, NOW + ahead, NOW + ahead + minute)
    assert store.acquire(ANN, 1, NOW, NOW + minute) is None
    assert f"the rate limit of {ANN} until" in caplog.text
    assert store.acquire(ANN, 1, NOW, NOW + minute) == NOW + minute, "the new window counts"


def test_a_slot_that_was_not_used_is_given_back(store: TaskStore) -> None:
    assert store.acquire(ANN, 1, NOW, LATER) is None
    store.refund(ANN)
    assert store.acquire(ANN, 1, NOW, LATER) is None
    assert store.acquire(ANN, 1, NOW, LATER) == LATER
    store.refund("nobody")


def test_a_window_never_takes_more_than_it_may(factory: Factory) -> None:
    stores = [factory() for _ in range(4)]

    def take(store: TaskStore) -> int:
        return sum(store.acquire(ANN, 10, NOW, LATER) is None for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, stores)) == 10


# --- what an operator does -------------------------------------------------------------------


def test_dead_ones_are_found_and_made_due_once_more(store: TaskStore) -> None:
    record = make_running(notifications=(make_notification(), make_notification(), make_notification("test")))
    store.add_record(record)
    mine = [claim(store, "a"), claim(store, "b"), claim(store, "c", method="test")]
    for item in mine:
        assert item is not None
        store.settle(item, Outcome(NotificationStatus.DEAD, NOW, error="no"))
    dead = store.list_notifications(NotificationStatus.DEAD, None, 10)
    assert [item.uuid for item in dead] == [record.uuid] * 3
    assert len(store.list_notifications(NotificationStatus.DEAD, "email", 10)) == 2
    assert len(store.list_notifications(NotificationStatus.DEAD, None, 1)) == 1
    assert store.list_notifications(NotificationStatus.SENT, None, 10) == []
    first = next(item.notification.id for item in dead if item.notification.method == "email")
    assert store.retry_dead(LATER, id_=first) == 1
    assert store.retry_dead(LATER, id_="unknown") == 0
    found = store.find_notification(first)
    assert found is not None
    assert (found.notification.status, found.notification.attempts) == (NotificationStatus.RETRYING, 0)
    assert (found.notification.revived_at, found.notification.last_error) == (LATER, "no")
    assert store.retry_dead(LATER + timedelta(minutes=1), method="test") == 1
    assert store.retry_dead(LATER + timedelta(minutes=2), method="email") == 2, "one dead, one that waits"
    assert store.find_notification("unknown") is None


def test_a_message_that_waits_for_its_next_attempt_is_made_due_at_once(store: TaskStore) -> None:
    store.add_record(make_running(notifications=(make_notification(),)))
    mine = claim(store)
    assert mine is not None
    far = LATER + timedelta(hours=1)
    assert store.retry_dead(LATER) == 0, "it is being sent"
    assert store.settle(mine, Outcome(NotificationStatus.RETRYING, NOW, far, "no"))
    assert claim(store, now=LATER) is None
    assert store.retry_dead(LATER, id_=mine.notification.id) == 1
    again = claim(store, now=LATER)
    assert again is not None
    assert (again.notification.attempts, again.notification.revived_at) == (1, LATER)
    assert store.settle(again, Outcome(NotificationStatus.SENT, LATER))
    assert store.retry_dead(far) == 0, "it has been sent"


def test_messages_that_are_due_held_back_or_undeliverable_are_not_revived(store: TaskStore) -> None:
    held_back(store, 1)
    undeliverable = make_notification(status=NotificationStatus.UNDELIVERABLE, attempt_after=None)
    store.add_record(make_running(notifications=(make_notification(), undeliverable)))
    assert store.retry_dead(LATER) == 0


def test_a_revived_head_that_waits_keeps_its_digest(store: TaskStore) -> None:
    ids = {item.id for item in held_back(store, 3)}
    head = claim(store, now=LATER)
    assert head is not None
    store.form_digest(head, LATER, "digest-1")
    far = LATER + timedelta(hours=1)
    assert store.settle(head, Outcome(NotificationStatus.RETRYING, LATER, far, "no"))
    assert store.retry_dead(LATER) == 1, "its companions go along with it"
    again = claim(store, now=LATER)
    assert again is not None
    id_, brought = store.form_digest(again, LATER, "digest-2")
    assert id_ == "digest-1"
    assert {again.notification.id, *(item.notification.id for item in brought)} == ids


def test_a_notification_that_comes_twice_is_kept_once(store: TaskStore) -> None:
    record = make_running()
    store.add_record(record)
    item, fence = make_notification(), fence_of(store)
    change = Change(record.uuid, JobState.RUNNING, JobState.RUNNING, LATER, None, (item,))
    assert store.apply_changes([change], fence) == 1
    store.apply_changes([change], fence)
    found = find(store, record.uuid)
    assert found is not None
    assert found.notifications == (item,)


def test_an_alarm_is_kept_and_read_in_every_cycle(store: TaskStore) -> None:
    record = make_running(alarm_at=NOW)
    store.add_record(record)
    assert [item.alarm_at for item in store.list_open_jobs()] == [NOW]
    change = Change(record.uuid, JobState.RUNNING, JobState.RUNNING, NOW, None, alarm_at=LATER)
    assert store.apply_changes([change], fence_of(store)) == 1
    assert [item.alarm_at for item in store.list_open_jobs()] == [LATER]


# --- access ---------------------------------------------------------------------------------------


def make_key(**fields: Any) -> ApiKey:
    limits: dict[str, Any] = {"groups": ("chem",), "partitions": ("short",), "accounts": ()}
    grant = Grant(scopes=ORDINARY_SCOPES, users=("alice",), **limits)
    base = {"id": new_uuid(), "name": new_uuid(), "hash": "0f", "grant": grant, "created_at": NOW}
    return ApiKey.model_validate({**base, **fields})


def test_a_key_comes_back_whole(store: TaskStore) -> None:
    plain, whole = make_key(), make_key(grant=OPERATOR.grants[0], expires_at=LATER, name="$k.ü")
    for key in (plain, whole):
        store.add_key(key)
    assert store.list_keys() == [plain, whole]
    assert store.find_key(whole.id) == whole
    assert store.find_key("none") is None


def test_a_key_is_revoked_once_and_its_use_is_kept(store: TaskStore) -> None:
    key, other = make_key(), make_key(created_at=LATER)
    for item in (key, other):
        store.add_key(item)
    store.record_key_use(key.id, LATER)
    assert store.revoke_key(key.id, LATER)
    assert not store.revoke_key(key.id, NOW)
    assert not store.revoke_key("none", NOW)
    revoked = key.model_copy(update={"last_used_at": LATER, "revoked_at": LATER})
    assert store.list_keys() == [revoked, other]


def test_a_name_of_a_key_is_free_again_once_its_key_is_revoked_or_expired(store: TaskStore) -> None:
    first = make_key(name="ci", expires_at=LATER)
    assert store.add_key(first)
    assert not store.add_key(make_key(name="ci"))
    second = make_key(name="ci", created_at=LATER)
    assert store.add_key(second), "the first has expired"
    assert not store.add_key(make_key(name="ci", created_at=LATER))
    assert store.revoke_key(second.id, LATER)
    third = make_key(name="ci", created_at=LATER)
    assert store.add_key(third)
    assert [key.id for key in store.list_keys()] == [first.id, second.id, third.id]


def test_of_several_keys_with_one_name_that_are_created_at_once_one_is_stored(factory: Factory) -> None:
    stores = [factory(), factory()]
    for round_ in range(20):
        barrier = threading.Barrier(6)

        def add(number: int, barrier: threading.Barrier = barrier, name: str = f"ci {round_}") -> bool:
            barrier.wait()
            return stores[number % 2].add_key(make_key(name=name))

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(add, range(6))) == 1
    assert len(stores[0].list_keys()) == 20


@pytest.mark.real
def test_a_key_of_an_earlier_version_keeps_its_name(mongo_database: SharedDatabase) -> None:
    store = mongo_database.store()
    store.prepare()
    old = make_key(name="ci")
    assert store.add_key(old)
    store.api_keys.update_one({"_id": old.id}, {"$unset": {"valid_name": ""}})
    assert not store.add_key(make_key(name="ci"))
    assert store.revoke_key(old.id, LATER)
    assert store.add_key(make_key(name="ci"))
    store.close()


def test_what_a_caller_has_in_flight_is_counted(store: TaskStore) -> None:
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


# --- files of the past ----------------------------------------------------------------------------


def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    store = SqliteStore(path)
    store.prepare()
    record = make_running(notifications=(make_notification(),))
    store.add_record(record)
    with store.writing() as connection:
        for index in ("notifications_gathered", "notifications_digest", "tasks_caller"):
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


@pytest.mark.parametrize("kind", RecordKind)
def test_the_kind_of_a_record_is_kept(store: TaskStore, kind: RecordKind) -> None:
    record = make_record(kind=kind)
    store.add_record(record)
    assert find(store, record.uuid) == record


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


def test_records_in_a_state_are_the_newest_first_and_those_of_the_users_asked_for(store: TaskStore) -> None:
    records = [
        make_running(
            task=make_task(username=("alice", "bob")[number % 2]),
            slurm_job_id=number + 1,
            slurm_job_state=JobState.RUNNING if number < 6 else JobState.FAILED,
            created_at=NOW + timedelta(minutes=number),
        )
        for number in range(8)
    ]
    for record in records:
        store.add_record(record)
    running = records[5::-1]
    assert store.find_by_state(JobState.RUNNING, None, 100) == running
    assert store.find_by_state(JobState.RUNNING, None, 2) == running[:2]
    assert store.find_by_state(JobState.RUNNING, ["bob", "carol"], 100) == running[::2]
    assert store.find_by_state(JobState.RUNNING, [], 100) == []
    assert store.find_by_state(JobState.PENDING, None, 100) == []
    assert sorted(store.list_usernames()) == ["alice", "bob"]


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


def _forget_kinds(store: TaskStore) -> None:
    """Leave the records as they were before kinds were stored."""
    if isinstance(store, SqliteStore):
        with store.writing() as connection:
            connection.execute("UPDATE tasks SET kind = NULL")
    elif isinstance(store, MongoStore):
        store.tasks.update_many({}, {"$unset": {"kind": ""}})


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
