"""Requests that wait for tasks: they share one reading of the store, and cost Slurm nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import pytest

from app.errors import StoreUnavailable, UnknownTask
from app.job_state import JobState
from app.lifecycle.state_subscriptions import StateSubscriptions
from app.lifecycle.wait import TaskWaiting, UnlimitedSlot
from app.models.caller import OPERATOR
from app.models.record import utc_now
from app.models.record_state import RecordState, Wait, WaitCondition, states_of
from app.store.sqlite import SqliteStore
from tests.conftest import until
from tests.support.lifecycle import MINUTE, Service, left_open

END, BEGIN, CHANGE = WaitCondition.END, WaitCondition.BEGIN, WaitCondition.CHANGE
NO_SLOT = UnlimitedSlot()


class Steps(UnlimitedSlot):
    """A slot and a clock: each look at the client is a step of a second, at which something may happen."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self.seconds = 0.0
        self.is_taken = True
        self._events = iter(events)

    def clock(self) -> float:
        return self.seconds

    @contextmanager
    def give_back(self) -> Iterator[bool]:
        self.is_taken = False
        yield True
        self.is_taken = True

    def has_client_left(self) -> bool:
        assert not self.is_taken
        self.seconds += 1
        return bool(next(self._events, lambda: False)())


class FullSlot(UnlimitedSlot):
    """A slot that is never given back, because too many requests wait."""

    def give_back(self) -> AbstractContextManager[bool]:
        return nullcontext(False)


class CountingStore:
    """Has the query of waiting requests, on the records of another store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.queries: list[list[str]] = []
        self.failure: Exception | None = None

    def find_states(self, uuids: Any) -> dict[str, RecordState]:
        self.queries.append(list(uuids))
        if self.failure is not None:
            raise self.failure
        return self._store.find_states(uuids)


class Stepwise:
    """The use case without a thread: `publish` is its only reading of the store."""

    def __init__(self, service: Service) -> None:
        self.store = CountingStore(service.store)
        store: Any = self.store
        self.subscriptions = StateSubscriptions(store, start_loop=lambda loop: None)
        self._service = service

    def publish(self) -> None:
        self.subscriptions.publish_states()

    def wait(self, task: dict[str, Any], wanted: Wait, steps: Steps) -> int | None:
        waiting = TaskWaiting(self.subscriptions, clock=steps.clock, client_check=0)
        return waiting.wait(lambda: states_of(self._service.record(task)), wanted, steps)


@pytest.fixture
def stepwise(service: Service) -> Stepwise:
    return Stepwise(service)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def wait_in_thread(
    pool: ThreadPoolExecutor, service: Service, task: dict[str, Any], wanted: Wait
) -> Future[int | None]:
    """Begin to wait in another thread, and return once it waits."""
    before = len(service.subscriptions)
    answer = pool.submit(
        service.waiting.wait,
        lambda: states_of(service.lookup.read_by_uuid(OPERATOR, task["uuid"])),
        wanted,
        NO_SLOT,
    )
    until(lambda: len(service.subscriptions) > before or answer.done(), 10)
    return answer


@pytest.mark.parametrize(
    ("condition", "state"),
    [(END, JobState.FAILED), (END, JobState.UNKNOWN), (BEGIN, JobState.RUNNING), (BEGIN, JobState.CANCELLED)],
)
def test_a_condition_that_is_met_already_does_not_wait(
    service: Service, stepwise: Stepwise, condition: WaitCondition, state: JobState
) -> None:
    task, job_id = service.submit()
    if state is JobState.UNKNOWN:
        service.slurm.forget(job_id, accounted=False)
        service.refresh(utc_now())
        service.refresh(utc_now() + 30 * MINUTE)
    else:
        service.move(job_id, state)
    steps = Steps()
    assert stepwise.wait(task, Wait(60, condition), steps) is None
    assert steps.seconds == 0


def test_a_failed_submission_has_ended(service: Service, stepwise: Stepwise) -> None:
    task = left_open(service, exists=False)
    record = service.record(task)
    steps = Steps(
        lambda: not service.store.fail_reservation(record, "refused", utc_now()),
        stepwise.publish,
    )
    assert stepwise.wait(task, Wait(60), steps) is None
    assert steps.seconds == 2


def test_a_request_waits_until_the_condition_is_met(service: Service, stepwise: Stepwise) -> None:
    task, job_id = service.submit()
    steps = Steps(
        stepwise.publish,
        lambda: service.move(job_id, JobState.RUNNING),
        stepwise.publish,
        lambda: service.move(job_id, JobState.COMPLETED),
        stepwise.publish,
    )
    assert stepwise.wait(task, Wait(60, END), steps) is None
    assert steps.seconds == 5
    assert steps.is_taken


def test_a_request_that_waits_for_a_change_returns_at_the_first_one(
    service: Service, stepwise: Stepwise
) -> None:
    task, job_id = service.submit()
    steps = Steps(lambda: service.move(job_id, JobState.RUNNING), stepwise.publish)
    assert stepwise.wait(task, Wait(60, CHANGE), steps) is None
    assert steps.seconds == 2


def test_a_request_returns_when_its_time_is_over(service: Service, stepwise: Stepwise) -> None:
    task, _ = service.submit()
    steps = Steps()
    assert stepwise.wait(task, Wait(7.5), steps) is None
    assert steps.seconds == 8


def test_zero_seconds_are_no_wait(service: Service, stepwise: Stepwise) -> None:
    task, _ = service.submit()
    assert stepwise.wait(task, Wait(0), Steps()) is None
    assert stepwise.store.queries == []


def test_a_request_ends_when_its_client_leaves(service: Service, stepwise: Stepwise) -> None:
    task, _ = service.submit()
    steps = Steps(lambda: False, lambda: True)
    assert stepwise.wait(task, Wait(60), steps) is None
    assert steps.seconds == 2
    assert len(stepwise.subscriptions) == 0


def test_a_change_before_the_subscription_is_not_lost(service: Service, stepwise: Stepwise) -> None:
    task, job_id = service.submit()

    def find() -> dict[str, RecordState]:
        found = states_of(service.record(task))
        service.move(job_id, JobState.RUNNING)
        return found

    steps = Steps(stepwise.publish)
    waiting = TaskWaiting(stepwise.subscriptions, clock=steps.clock, client_check=0)
    assert waiting.wait(find, Wait(60, CHANGE), steps) is None
    assert steps.seconds == 1


def test_a_record_that_vanishes_ends_the_waiting(service: Service, stepwise: Stepwise) -> None:
    task = left_open(service, exists=False)
    steps = Steps(
        lambda: service.store.release_reservation(service.record(task)),
        stepwise.publish,
    )
    assert stepwise.wait(task, Wait(60), steps) is None
    assert steps.seconds == 2
    with pytest.raises(UnknownTask):
        service.lookup.find_by_uuid(OPERATOR, task["uuid"])


def test_an_unknown_task_is_answered_at_once(service: Service) -> None:
    with pytest.raises(UnknownTask):
        service.waiting.wait(
            lambda: states_of(service.lookup.read_by_uuid(OPERATOR, "none")), Wait(60), Steps()
        )


def test_requests_beyond_the_limit_of_waiting_ones_get_retry_after(service: Service) -> None:
    task, _ = service.submit()
    states = states_of(service.record(task))

    def seconds() -> set[int | None]:
        return {service.waiting.wait(lambda: states, Wait(60), FullSlot()) for _ in range(200)}

    assert seconds() == {1, 2}
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(service.subscriptions.subscribe({}, END))
        assert seconds() == set(range(1, 13))


def test_all_waiting_requests_share_one_query(service: Service, stepwise: Stepwise) -> None:
    tasks = [service.submit()[0] for _ in range(3)]
    known = [states_of(service.record(task)) for task in tasks]
    with ExitStack() as stack:
        for states in known * 100:
            stack.enter_context(stepwise.subscriptions.subscribe(states, END))
        stepwise.publish()
    assert stepwise.store.queries == [sorted(task["uuid"] for task in tasks)]


def test_waiting_costs_slurm_nothing(service: Service, pool: ThreadPoolExecutor) -> None:
    task, job_id = service.submit()
    service.slurm.calls.clear()
    answers = [wait_in_thread(pool, service, task, Wait(60)) for _ in range(20)]
    time.sleep(0.1)
    assert service.slurm.calls == []
    service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(utc_now())
    assert [answer.result(10) for answer in answers] == [None] * 20
    for _ in range(20):
        service.lookup.find_by_uuid(OPERATOR, task["uuid"])
    assert "find_job" not in service.slurm.calls


def test_the_thread_runs_only_while_a_request_waits(service: Service, pool: ThreadPoolExecutor) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "waiting"]

    until(lambda: threads() == [], 10)
    task, job_id = service.submit()
    for state in (JobState.RUNNING, JobState.COMPLETED):
        answer = wait_in_thread(pool, service, task, Wait(60, CHANGE))
        assert threads() == ["waiting"]
        service.move(job_id, state)
        assert answer.result(10) is None
        until(lambda: threads() == [], 10)


def test_a_change_of_the_leader_in_the_same_process_is_noticed_at_once(
    service: Service, pool: ThreadPoolExecutor
) -> None:
    service.subscriptions = StateSubscriptions(service.store, interval=3600)
    service.waiting = TaskWaiting(service.subscriptions)
    monitor = service.new_monitor("leader")
    task, job_id = service.submit()
    answer = wait_in_thread(pool, service, task, Wait(60))
    time.sleep(0.1)  # the first reading is over
    service.slurm.put(job_id, JobState.COMPLETED)
    assert monitor.run_cycle(utc_now())
    assert answer.result(10) is None


def test_an_outage_of_the_store_ends_no_request(service: Service, pool: ThreadPoolExecutor) -> None:
    store: Any = CountingStore(service.store)
    store.failure = StoreUnavailable("away")
    service.subscriptions = StateSubscriptions(store, interval=0.02)
    service.waiting = TaskWaiting(service.subscriptions)
    task, job_id = service.submit()
    answer = wait_in_thread(pool, service, task, Wait(60))
    service.move(job_id, JobState.COMPLETED)
    until(lambda: len(store.queries) > 2, 10)
    store.failure = RuntimeError("a fault of our own")
    until(lambda: len(store.queries) > 4, 10)
    assert not answer.done()
    store.failure = None
    assert answer.result(10) is None


class StuckStore(CountingStore):
    """A store whose answers come when `answers` is set."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.answers = threading.Event()

    def find_states(self, uuids: Any) -> dict[str, RecordState]:
        self.queries.append(list(uuids))
        assert self.answers.wait(10)
        return self._store.find_states(uuids)


def test_a_request_whose_time_is_over_while_the_store_is_away_does_not_try_it(
    service: Service, pool: ThreadPoolExecutor
) -> None:
    store: Any = CountingStore(service.store)
    store.failure = StoreUnavailable("away")
    service.subscriptions = StateSubscriptions(store, interval=0.02)
    service.waiting = TaskWaiting(service.subscriptions)
    task, _ = service.submit()
    answer = wait_in_thread(pool, service, task, Wait(0.5))
    assert isinstance(answer.exception(10), StoreUnavailable)
    store.failure = None
    assert wait_in_thread(pool, service, task, Wait(0.5)).result(10) is None  # it begins anew


def test_a_request_whose_time_is_over_while_the_store_hangs_does_not_try_it(
    service: Service, pool: ThreadPoolExecutor
) -> None:
    store: Any = StuckStore(service.store)
    service.subscriptions = StateSubscriptions(store, interval=0.02, max_reading=0.1)
    service.waiting = TaskWaiting(service.subscriptions)
    task, _ = service.submit()
    answer = wait_in_thread(pool, service, task, Wait(0.5))
    assert isinstance(answer.exception(10), StoreUnavailable)
    store.answers.set()


def test_a_stop_answers_all_waiting_requests_at_once(service: Service, pool: ThreadPoolExecutor) -> None:
    task, _ = service.submit()
    answers = [wait_in_thread(pool, service, task, Wait(60)) for _ in range(5)]
    began = time.monotonic()
    service.waiting.stop()
    assert [answer.result(10) for answer in answers] == [1] * 5
    assert wait_in_thread(pool, service, task, Wait(60)).result(10) == 1
    assert time.monotonic() - began < 10


def test_a_process_without_a_thread_to_spare_answers_at_once(service: Service) -> None:
    def fail(loop: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    subscriptions = StateSubscriptions(service.store, start_loop=fail)
    task, _ = service.submit()
    states = states_of(service.record(task))
    assert TaskWaiting(subscriptions).wait(lambda: states, Wait(60), NO_SLOT) == 1
    assert len(subscriptions) == 0
