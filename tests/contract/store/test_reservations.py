"""Reservations of uuids, in every store."""

import sqlite3
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import DuplicateUuid, StoreUnavailable
from app.job_state import JobState
from app.models.record import Change
from app.store import TaskStore
from app.store.sqlite import SqliteStore
from tests.conftest import until
from tests.support.databases import SharedDatabase
from tests.support.mongo_commands import make_observed_store
from tests.support.real.mongod import Mongod
from tests.support.stores import LATER, NOW, fence_of, find, make_notification, make_record, make_running


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


def test_a_submission_with_an_unknown_outcome_ends_as_unknown(store: TaskStore) -> None:
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


def test_a_reservation_from_what_is_now_the_future_is_found(store: TaskStore) -> None:
    """It was made before the clock was set back."""
    record = make_record(created_at=LATER)
    store.add_record(record)
    assert store.list_reservations(NOW) == []
    assert store.list_reservations(NOW, NOW + timedelta(seconds=5)) == [record]


class TracedSqliteStore(SqliteStore):
    """A store that records how each of its transactions is synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.synced: list[str] = []

    def _open_connection(self) -> sqlite3.Connection:
        connection = super()._open_connection()
        connection.set_trace_callback(self._note)
        return connection

    def _note(self, statement: str) -> None:
        if statement.startswith("PRAGMA synchronous"):
            self.synced.append(statement.rpartition(" ")[2])


def reserve_and_accept(store: TaskStore) -> None:
    """Add a reservation and accept it, first as a submission does, then as the reconciler does."""
    for durable in (False, True):
        record = make_record()
        store.add_record(record)
        assert store.accept_job(record, 12, JobState.PENDING, LATER, durable=durable)
        found = find(store, record.uuid)
        assert found is not None
        assert found.slurm_job_id == 12


def test_only_the_acceptance_of_a_submission_does_not_wait_for_the_disk_of_sqlite(tmp_path: Path) -> None:
    store = TracedSqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    store.synced.clear()
    reserve_and_accept(store)
    assert store.synced == ["FULL", "NORMAL", "FULL", "FULL"]
    store.close()


@pytest.mark.real
def test_only_the_acceptance_of_a_submission_does_not_wait_for_the_majority_of_mongodb(
    mongo_database: SharedDatabase,
) -> None:
    store, seen = make_observed_store(mongo_database, "insert", "update")
    reserve_and_accept(store)
    durable = {"w": "majority", "j": True}
    concerns = [command["writeConcern"] for command in seen.commands]
    assert concerns == [durable, {"w": 1, "j": False}, durable, durable]
    store.close()


@pytest.mark.real
def test_a_crash_of_mongodb_may_lose_an_acceptance_but_no_reservation(replica_set: Mongod) -> None:
    database = SharedDatabase(replica_set.uri)
    store, record = database.store(), make_record()
    store.add_record(record)
    assert store.accept_job(record, 12, JobState.PENDING, LATER, durable=False)
    replica_set.kill()
    replica_set.start()

    def is_primary_again() -> bool:
        with suppress(StoreUnavailable):
            return fence_of(store) > 0
        return False

    until(is_primary_again, what="an election")
    found = find(store, record.uuid)
    assert found is not None
    assert store.accept_job(found, 12, JobState.PENDING, LATER) == found.is_reserved, "as the reconciler does"
    assert [job.slurm_job_id for job in store.list_open_jobs()] == [12]
    store.close()
    database.close()
