"""The lease of the leader, in every store."""

from datetime import timedelta

import pytest

from app.job_state import JobState
from app.models.record import Change
from app.store import TaskStore
from app.store.clock import CLOCK_TOLERANCE
from tests.support.stores import LATER, NOW, Factory, end, make_record, make_running


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


def test_a_process_leads_until_its_lease_ends(store: TaskStore) -> None:
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


def test_a_lease_can_be_given_back_by_its_owner_alone(store: TaskStore) -> None:
    store.acquire_lease("a", NOW, LATER)
    store.release_lease("b")
    assert not store.acquire_lease("b", NOW, LATER)
    store.release_lease("a")
    assert store.acquire_lease("b", NOW, LATER)
