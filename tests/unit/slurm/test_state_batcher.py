"""One request for the states of all jobs that are looked up at a moment."""

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.slurm.request_budget import RequestBudget
from app.slurm.state_batcher import StateBatcher, StateReading
from tests.conftest import until
from tests.unit.slurm.test_job_reader import client_of, large_cluster


class Cluster:
    """A list of states that records its requests; they can be stopped on their way."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.requests: list[list[int]] = []
        self.unlisted: set[int] = set()
        self.unread: set[int] = set()  # which are left out of the answer
        self.failures: list[Exception] = []
        self.state = JobState.RUNNING
        self.answers = threading.Event()
        self.answers.set()
        self.under_way = 0

    def clock(self) -> float:
        return self.seconds

    def read_states(self, job_ids: Collection[int]) -> dict[int, JobState | None]:
        self.requests.append(list(job_ids))
        self.under_way += 1
        assert self.under_way == 1, "one request at a time"
        assert self.answers.wait(10)
        self.under_way -= 1
        if self.failures:
            raise self.failures.pop(0)
        listed = [job_id for job_id in job_ids if job_id not in self.unread]
        return {job_id: None if job_id in self.unlisted else self.state for job_id in listed}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def batcher(cluster: Cluster) -> StateBatcher:
    return StateBatcher(cluster.read_states, RequestBudget(100, cluster.clock), cluster.clock)


def state_of(reading: StateReading | None) -> JobState | None:
    assert reading is not None
    assert reading.error is None
    return reading.state


@contextmanager
def held(cluster: Cluster, batcher: StateBatcher) -> Iterator[Callable[[int], Future[StateReading | None]]]:
    """Start a request for job 1, which ends after the block; the yielded function asks for further jobs."""
    with ThreadPoolExecutor(60) as pool:
        cluster.answers.clear()
        try:
            pool.submit(batcher.read, 1)
            until(lambda: len(cluster.requests) == 1)
            yield lambda job_id: pool.submit(batcher.read, job_id)
        finally:
            cluster.answers.set()


def wait_for_callers(batcher: StateBatcher, count: int) -> None:
    until(lambda: len(batcher._condition._waiters) == count)  # type: ignore[attr-defined]


def test_callers_that_wait_at_a_moment_share_one_request(cluster: Cluster, batcher: StateBatcher) -> None:
    with held(cluster, batcher) as ask:
        calls = [ask(job_id) for job_id in range(2, 42)]
        wait_for_callers(batcher, 40)
    assert {state_of(call.result()) for call in calls} == {JobState.RUNNING}
    assert [len(request) for request in cluster.requests] == [1, 40]


def test_a_job_is_read_once_for_all_its_callers(cluster: Cluster, batcher: StateBatcher) -> None:
    with held(cluster, batcher) as ask:
        calls = [ask(1) for _ in range(49)]
        wait_for_callers(batcher, 49)
    assert {state_of(call.result()) for call in calls} == {JobState.RUNNING}
    assert cluster.requests == [[1]]


def test_a_state_is_given_for_two_seconds(cluster: Cluster, batcher: StateBatcher) -> None:
    assert state_of(batcher.read(1)) is JobState.RUNNING
    cluster.state = JobState.COMPLETED
    cluster.seconds += 1.9
    assert state_of(batcher.read(1)) is JobState.RUNNING
    cluster.seconds += 0.2
    assert state_of(batcher.read(1)) is JobState.COMPLETED
    assert len(cluster.requests) == 2


def test_a_request_refreshes_the_jobs_that_were_asked_for_recently(
    cluster: Cluster, batcher: StateBatcher
) -> None:
    for job_id in range(100):
        batcher.read(job_id)
    cluster.seconds += 1.5
    batcher.read(200)
    assert cluster.requests[-1][0] == 200
    assert set(cluster.requests[-1]) == {200, *range(100)}
    cluster.seconds += 1.9
    for job_id in range(100):
        batcher.read(job_id)
    assert len(cluster.requests) == 101


def test_a_thousand_jobs_cost_a_request_a_second(cluster: Cluster, batcher: StateBatcher) -> None:
    for _ in range(3):  # the first requests have few jobs
        for job_id in range(10_000, 11_000):
            batcher.read(job_id)
            cluster.seconds += 0.001
    cluster.requests.clear()
    for _ in range(10):
        for job_id in range(10_000, 11_000):
            assert batcher.read(job_id) is not None
            cluster.seconds += 0.001
    assert len(cluster.requests) <= 12


def test_a_job_that_no_one_asks_for_any_more_is_not_refreshed(
    cluster: Cluster, batcher: StateBatcher
) -> None:
    batcher.read(1)
    cluster.seconds += 6
    batcher.read(2)
    assert cluster.requests == [[1], [2]]


def test_no_request_is_made_without_a_budget(cluster: Cluster) -> None:
    batcher = StateBatcher(cluster.read_states, RequestBudget(0.4, cluster.clock), cluster.clock)
    readings = [batcher.read(job_id) for job_id in range(1000)]
    assert len(cluster.requests) == 4
    assert readings[4:] == [None] * 996
    cluster.seconds += 2.6
    assert state_of(batcher.read(7)) is JobState.RUNNING
    assert len(cluster.requests) == 5
    assert len(cluster.requests[-1]) > 400, "the jobs that were refused are refreshed with it"


def test_all_callers_of_a_failed_request_get_its_error(cluster: Cluster, batcher: StateBatcher) -> None:
    cluster.failures = [SlurmUnavailable("no answer")]
    with held(cluster, batcher) as ask:
        calls = [ask(job_id) for job_id in range(2, 12)]
        wait_for_callers(batcher, 10)
    errors = [call.result() for call in calls]
    assert all(reading is not None and str(reading.error) == "no answer" for reading in errors)
    assert len(cluster.requests) == 1, "those who came meanwhile do not wait for another failure"
    assert state_of(batcher.read(2)) is JobState.RUNNING


def test_jobs_of_a_failed_request_are_not_refreshed_for_others(
    cluster: Cluster, batcher: StateBatcher
) -> None:
    cluster.unread = {1}
    assert batcher.read(1) is None
    batcher.read(2)
    cluster.seconds += 1.5
    batcher.read(3)
    assert set(cluster.requests[-1]) == {2, 3}


def test_a_state_that_is_not_listed_is_not_requested_again(cluster: Cluster, batcher: StateBatcher) -> None:
    cluster.unlisted = {1}
    assert state_of(batcher.read(1)) is None
    assert state_of(batcher.read(1)) is None
    assert len(cluster.requests) == 1


def test_an_unexpected_error_stops_no_other_caller(cluster: Cluster, batcher: StateBatcher) -> None:
    cluster.failures = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        batcher.read(1)
    assert state_of(batcher.read(1)) is JobState.RUNNING


def test_a_caller_waits_a_few_seconds_for_the_request_of_another(
    cluster: Cluster,
) -> None:
    batcher = StateBatcher(cluster.read_states, RequestBudget(1), max_wait=0.01)
    with held(cluster, batcher) as ask:
        reading = ask(2).result()
    assert reading is not None
    assert "in time" in str(reading.error)


def test_other_jobs_are_read_although_one_job_makes_requests_fail() -> None:
    """Whatever asks for job 7 fails; the jobs of its request are then asked for last, and fewer at a time."""
    session = large_cluster(300)
    client = client_of(session)
    cluster = Cluster()
    batcher = StateBatcher(client.read_states, RequestBudget(100, cluster.clock), cluster.clock)
    for job_id in range(1, 301):
        batcher.read(job_id)
    session.broken = {7}
    known: dict[int, JobState | None] = {}
    cluster.seconds += 3
    for _ in range(2):
        for job_id in range(1, 301):
            reading = batcher.read(job_id)
            if reading is not None and reading.error is None:
                known[job_id] = reading.state
    assert known == dict.fromkeys(set(range(1, 301)) - {7}, JobState.RUNNING)
    session.requests.clear()
    for job_id in range(1, 301):
        cluster.seconds += 0.01
        batcher.read(job_id)
    assert [job_ids for _, job_ids in session.requests if 7 in job_ids] == [[7]]


def test_states_that_a_list_does_not_tell_are_none() -> None:
    session = large_cluster(5)
    session.array_tasks = {3: [(3, 1, "RUNNING"), (9, 2, "RUNNING")]}
    session.jobs[4] = ["NONSENSE"]
    states = client_of(session).read_states([1, 3, 4, 6])
    assert states == {1: JobState.RUNNING, 3: None, 4: None, 6: None}


def test_states_are_none_where_the_list_is_missing() -> None:
    session = large_cluster(5)
    session.has_states = False
    client = client_of(session)
    assert client.offers_states()
    assert client.read_states([1]) is None
    assert not client.offers_states()
