"""Requests that wait in one process for changes that another process writes, in every store."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from app.job_state import JobState
from app.lifecycle.state_subscriptions import StateSubscriptions
from app.lifecycle.wait import TaskWaiting, UnlimitedSlot
from app.models.record_state import RecordState, Wait, WaitCondition, states_of
from app.store import TaskStore
from tests.conftest import until
from tests.support.databases import SharedDatabase
from tests.support.older_server import older_document
from tests.support.stores import Factory, end, fence_of, make_record, make_running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("condition", WaitCondition)
def test_a_waiting_request_sees_the_writes_of_another_process(
    factory: Factory, pool: ThreadPoolExecutor, condition: WaitCondition
) -> None:
    here, there = factory(), factory()
    record = make_running(slurm_job_state=JobState.PENDING)
    here.add_record(record)
    subscriptions = StateSubscriptions(there, interval=0.02)
    waiting = TaskWaiting(subscriptions)
    answer = pool.submit(waiting.wait, lambda: states_of(record), Wait(60, condition), UnlimitedSlot())
    until(lambda: len(subscriptions) == 1, 10)
    assert here.apply_changes([replace(end(record), before=JobState.PENDING)], fence_of(here)) == 1
    assert answer.result(30) is None


def test_a_request_sees_a_reservation_that_another_process_releases(
    factory: Factory, pool: ThreadPoolExecutor
) -> None:
    here, there = factory(), factory()
    record = make_record()
    here.add_record(record)
    subscriptions = StateSubscriptions(there, interval=0.02)
    waiting = TaskWaiting(subscriptions)
    answer = pool.submit(waiting.wait, lambda: states_of(record), Wait(60), UnlimitedSlot())
    until(lambda: len(subscriptions) == 1, 10)
    here.release_reservation(record)
    assert answer.result(30) is None


def test_more_records_than_one_query_reads_are_waited_for(store: TaskStore) -> None:
    records = [make_running() for _ in range(3)]
    for record in records:
        store.add_record(record)
    many = {f"none-{number}": RecordState("alice", 7, JobState.RUNNING, False) for number in range(12_000)}
    subscriptions = StateSubscriptions(store, start_loop=lambda loop: None)
    with ExitStack() as stack:
        first, others = (
            stack.enter_context(subscriptions.subscribe(states, WaitCondition.CHANGE))
            for states in (states_of(records[0]), many)
        )
        subscriptions.publish_states()
        assert not first.is_met
        assert others.is_met
        store.apply_changes([end(records[0])], fence_of(store))
        subscriptions.publish_states()
        assert first.is_met


@pytest.mark.real
def test_documents_of_the_older_server_have_the_states_of_their_records(
    mongo_database: SharedDatabase,
) -> None:
    store = mongo_database.store()
    documents = [
        older_document(7, "RUNNING"),
        older_document("8", "COMPLETED"),
        older_document(9, None),
        older_document(10, "no state of Slurm"),
        older_document(None, "FAILED"),
    ]
    store.tasks.insert_many(documents)
    store.prepare()
    for document in documents:
        uuid = document["task"]["uuid"]
        known = states_of(store.find_by_uuids([uuid])[uuid])
        assert store.find_states(list(known)) == known
    store.close()
