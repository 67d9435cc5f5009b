"""Reservations of uuids, in every store."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.record import Change
from app.store import TaskStore
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
