"""The queue of notifications, in every store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from app.job_state import JobState
from app.models.record import Change, NotificationStatus
from app.store import TaskStore
from app.store.notification_queue import Outcome
from tests.support.stores import (
    LATER,
    NOW,
    Factory,
    claim,
    fence_of,
    find,
    held_back,
    make_notification,
    make_running,
)
from tests.support.tasks import new_uuid


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
        "it has been sent, although another process has claimed it"
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


def test_a_settled_notification_is_never_claimed_again(store: TaskStore) -> None:
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


def test_messages_that_are_due_gathered_or_undeliverable_are_not_retried(store: TaskStore) -> None:
    held_back(store, 1)
    undeliverable = make_notification(status=NotificationStatus.UNDELIVERABLE, attempt_after=None)
    store.add_record(make_running(notifications=(make_notification(), undeliverable)))
    assert store.retry_dead(LATER) == 0


def test_a_retried_head_that_waits_keeps_its_digest(store: TaskStore) -> None:
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
