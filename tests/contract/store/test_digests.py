"""Digests: messages that wait for others to the same receiver, in every store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from app.models.record import NotificationStatus
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.notification_queue import Outcome, StoredNotification
from tests.support.databases import SharedDatabase
from tests.support.stores import ANN, LATER, NOW, Factory, claim, held_back, make_notification, make_running
from tests.support.tasks import new_uuid


def statuses(store: TaskStore, *ids: str) -> list[NotificationStatus]:
    found = [store.find_notification(id_) for id_ in ids]
    return [item.notification.status for item in found if item is not None]


def test_a_deferred_message_counts_no_attempt_and_is_due_when_its_window_ends(store: TaskStore) -> None:
    (item,) = held_back(store, 1)
    assert (item.status, item.attempts, item.recipient) == (NotificationStatus.GATHERED, 0, ANN)
    assert claim(store, now=LATER - timedelta(milliseconds=1)) is None
    assert claim(store, now=LATER) is not None


def test_a_digest_contains_all_deferred_messages_of_the_same_person(store: TaskStore) -> None:
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


def test_the_messages_of_a_dead_digest_are_dead_and_all_can_be_retried(store: TaskStore) -> None:
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
    """Each retried message is claimed and becomes dead at once, as by a thread that delivers meanwhile."""

    looks = 0

    def _find_batch(self, wanted: dict[str, Any]) -> list[StoredNotification]:
        self.looks += 1
        while (claimed := claim(self, new_uuid(), LATER)) is not None:
            self.settle(claimed, Outcome(NotificationStatus.DEAD, LATER, error="again"))
        assert self.looks < 10
        return super()._find_batch(wanted)


@pytest.mark.real
def test_a_message_that_dies_again_is_not_retried_twice_by_the_same_call(
    mongo_database: SharedDatabase,
) -> None:
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


def test_an_expired_claim_forms_no_other_digest_and_settles_nothing(store: TaskStore) -> None:
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


def test_a_retried_head_does_not_retry_the_dead_others_of_its_digest(store: TaskStore) -> None:
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


def test_a_digest_formed_by_many_processes_contains_each_message_once(factory: Factory) -> None:
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
