"""Requests and bytes of polling job arrays that have very many tasks."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.job_reader import JobReader
from app.slurm.reply import Reply
from app.slurm.request import Query

ARRAY = 5000
RECORD = {"user_name": "alice", "comment": "x" * 8000}  # a record of 24.11 has 9 kB


class ArrayCluster:
    """A session with a slurmctld of 24.11 that knows arrays; it counts requests and bytes."""

    def __init__(self, waiting: int = 0, split_off: Collection[str] = (), array_id: int = ARRAY) -> None:
        self.arrays = {array_id: (waiting, list(split_off))}
        self.waiting_state = "PENDING"
        self.jobs: dict[int, str] = {}
        self.requests: list[str] = []
        self.bytes = 0
        self.too_slow: set[str] = set()  # paths whose requests end with a time-out
        self.now = 0.0
        self.costs_of_records = 0.0  # seconds
        self.api = "v0.0.42"

    def dialect(self) -> Dialect:
        return Dialect(self.api)

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        assert path != "jobs", "the list of all jobs is asked for"
        wanted = [int(value) for _, value in query]
        self.requests.append(path if len(wanted) != 1 else f"{path}?{wanted[0]}")
        if self.requests[-1] in self.too_slow:
            raise SlurmUnavailable("did not answer in time")
        items = (
            [item for job_id in wanted for item in self._states(job_id)]
            if path == "jobs/state"
            else self._records(int(path.removeprefix("job/")))
        )
        self.bytes += len(json.dumps(items))
        return Reply(200, {"jobs": items, "errors": []}, "")

    def _states(self, job_id: int) -> list[dict[str, Any]]:
        if job_id not in self.arrays:
            return [{"job_id": str(job_id), "state": [self.jobs[job_id]]}] if job_id in self.jobs else []
        waiting, split_off = self.arrays[job_id]
        own = [{"job_id": f"{job_id}_{n}", "state": [self.waiting_state]} for n in range(waiting)]
        others = [
            {"job_id": f"{job_id + 1 + n}_{waiting + n}", "state": [state]}
            for n, state in enumerate(split_off)
        ]
        return own + others

    def _records(self, job_id: int) -> list[dict[str, Any]]:
        if job_id not in self.arrays:
            return [{**RECORD, "job_id": job_id, "job_state": [self.jobs[job_id]]}]
        waiting, split_off = self.arrays[job_id]
        self.now += self.costs_of_records
        array = {**RECORD, "array_job_id": job_id}
        indices = f"0-{waiting - 1}"
        own = {**array, "job_id": job_id, "job_state": [self.waiting_state], "array_task_string": indices}
        return [own] * bool(waiting) + [
            {**array, "job_id": job_id + 1 + n, "array_task_id": waiting + n, "job_state": [state]}
            for n, state in enumerate(split_off)
        ]

    def forget_requests(self) -> None:
        self.requests.clear()
        self.bytes = 0


def reader_of(cluster: ArrayCluster) -> JobReader:
    session: Any = cluster
    return JobReader(session, 0, clock=lambda: cluster.now)


def states_of(news: Mapping[int, SlurmJob | None]) -> dict[int, JobState | None]:
    return {job_id: job.job_state if job else None for job_id, job in news.items()}


@pytest.mark.parametrize("api", [api for api in SUPPORTED_API_VERSIONS if Dialect(api).has_state_list])
def test_array_of_20000_waiting_tasks_costs_one_record_a_poll(api: str) -> None:
    cluster = ArrayCluster(waiting=20_000)
    cluster.api = api
    cluster.jobs = dict.fromkeys(range(1, 101), "RUNNING")
    reader = reader_of(cluster)
    known = {ARRAY: JobState.PENDING} | dict.fromkeys(range(1, 101), JobState.RUNNING)
    for requests in ([f"job/{ARRAY}", "jobs/state"], ["jobs/state", f"job/{ARRAY}"]):
        cluster.forget_requests()
        cluster.now += 60
        assert reader.poll(known) == {}
        assert cluster.requests == requests
        assert cluster.bytes < 50_000


def test_poll_counts_a_job_as_unread_but_no_array() -> None:
    cluster = ArrayCluster(waiting=20_000)
    cluster.jobs = {1: "RUNNING", 2: "RUNNING"}
    reader = reader_of(cluster)
    known = {ARRAY: JobState.PENDING} | dict.fromkeys((1, 2), JobState.RUNNING)
    for _ in range(2):  # the second poll does not read the array
        reader.poll(known)
        assert reader.unread == set()


def test_change_of_a_large_waiting_array_is_noticed_in_the_next_poll() -> None:
    """The list of states would show only the tasks that still wait."""
    cluster = ArrayCluster(waiting=20_000)
    reader = reader_of(cluster)
    assert reader.poll({ARRAY: JobState.PENDING}) == {}
    cluster.arrays[ARRAY] = (19_999, ["RUNNING"])
    assert states_of(reader.poll({ARRAY: JobState.PENDING})) == {ARRAY: JobState.RUNNING}
    del cluster.arrays[ARRAY]
    cluster.jobs[ARRAY] = "COMPLETED"
    assert states_of(reader.poll({ARRAY: JobState.RUNNING})) == {ARRAY: JobState.COMPLETED}


def test_array_with_thousands_of_running_tasks_is_polled_by_their_states() -> None:
    cluster = ArrayCluster(waiting=1, split_off=["RUNNING"] * 1000)
    reader = reader_of(cluster)
    assert states_of(reader.poll({ARRAY: JobState.PENDING})) == {ARRAY: JobState.RUNNING}
    for _ in range(5):
        cluster.now += 61
        cluster.forget_requests()
        assert reader.poll({ARRAY: JobState.RUNNING}) == {}
        assert cluster.requests == [f"jobs/state?{ARRAY}"]
        assert cluster.bytes < 60_000
    cluster.arrays[ARRAY] = (0, ["COMPLETED"] * 999 + ["FAILED"])
    cluster.now += 61
    assert states_of(reader.poll({ARRAY: JobState.RUNNING})) == {ARRAY: JobState.FAILED}


def test_array_that_is_expensive_to_read_is_read_at_a_low_rate_beside_other_jobs() -> None:
    cluster = ArrayCluster(waiting=10_000, split_off=["COMPLETED"] * 400)
    cluster.costs_of_records = 0.3
    cluster.jobs[1] = "RUNNING"
    reader = reader_of(cluster)
    known = {ARRAY: JobState.PENDING, 1: JobState.RUNNING}
    reader.poll(known)
    cluster.forget_requests()
    for _ in range(60):
        cluster.now += 1
        reader.poll(known)
    assert cluster.requests.count("jobs/state?1") == 60
    assert 5 <= cluster.requests.count(f"job/{ARRAY}") <= 12


def test_many_large_arrays_are_all_polled_in_turn() -> None:
    cluster = ArrayCluster()
    cluster.arrays = {ARRAY * n: (1000, []) for n in range(1, 31)}
    cluster.costs_of_records = 0.1
    reader = reader_of(cluster)
    known = dict.fromkeys(cluster.arrays, JobState.PENDING)
    reader.poll(known)
    cluster.forget_requests()
    for _ in range(4):
        cluster.now += 10
        reader.poll(known)
    assert {f"job/{array_id}" for array_id in known} <= set(cluster.requests)


def test_ended_array_of_many_tasks_that_never_began_is_polled_by_its_record() -> None:
    cluster = ArrayCluster(waiting=20_000)
    cluster.waiting_state = "CANCELLED"
    reader = reader_of(cluster)
    known = {ARRAY: JobState.CANCELLED}
    assert reader.poll(known, ended_arrays={ARRAY}) == {}
    cluster.forget_requests()
    cluster.now += 10
    assert reader.poll(known, ended_arrays={ARRAY}) == {}
    assert cluster.requests == [f"job/{ARRAY}"]
    cluster.arrays[ARRAY] = (19_999, ["PENDING"])
    cluster.now += 10
    assert states_of(reader.poll(known, ended_arrays={ARRAY})) == {ARRAY: JobState.PENDING}


def test_ended_array_of_many_tasks_that_ran_is_polled_by_their_states() -> None:
    cluster = ArrayCluster(split_off=["COMPLETED"] * 1000)
    cluster.jobs[ARRAY + 1] = "COMPLETED"
    reader = reader_of(cluster)
    known = {ARRAY: JobState.COMPLETED}
    # the last task has the array's own id
    cluster.arrays[ARRAY] = (1, ["COMPLETED"] * 999)
    cluster.waiting_state = "COMPLETED"
    reader.poll(known, ended_arrays={ARRAY})
    cluster.forget_requests()
    cluster.now += 61
    assert reader.poll(known, ended_arrays={ARRAY}) == {}
    assert cluster.requests == [f"jobs/state?{ARRAY}"]


def test_array_whose_states_never_come_is_read_by_its_record() -> None:
    cluster = ArrayCluster(waiting=100_000)
    cluster.jobs[1] = "COMPLETED"
    cluster.too_slow = {f"jobs/state?{ARRAY}", "jobs/state"}
    reader = reader_of(cluster)
    known = {ARRAY: JobState.RUNNING, 1: JobState.RUNNING}
    seen: dict[int, SlurmJob | None] = {}
    for _ in range(6):
        cluster.now += 1
        with suppress(SlurmUnavailable):
            seen |= reader.poll(known)
    assert states_of(seen) == {ARRAY: JobState.PENDING, 1: JobState.COMPLETED}


def test_array_that_cannot_be_read_delays_no_other_job() -> None:
    cluster = ArrayCluster(waiting=20_000)
    cluster.jobs[1] = "RUNNING"
    reader = reader_of(cluster)
    known = {ARRAY: JobState.PENDING, 1: JobState.RUNNING}
    reader.poll(known)
    cluster.too_slow = {f"job/{ARRAY}", f"jobs/state?{ARRAY}"}
    cluster.jobs[1] = "COMPLETED"
    assert states_of(reader.poll(known)) == {1: JobState.COMPLETED}


def test_large_array_that_slurmctld_has_forgotten_is_missing() -> None:
    cluster = ArrayCluster(waiting=1, split_off=["RUNNING"] * 3000)
    reader = reader_of(cluster)
    reader.poll({ARRAY: JobState.PENDING})
    cluster.arrays.clear()
    cluster.now += 61
    assert reader.poll({ARRAY: JobState.RUNNING}) == {ARRAY: None}


def test_small_arrays_share_one_request() -> None:
    cluster = ArrayCluster()
    cluster.arrays = {1000 * n: (3, ["RUNNING"] * 5) for n in range(1, 21)}
    reader = reader_of(cluster)
    known = dict.fromkeys(cluster.arrays, JobState.PENDING)
    for _ in range(3):
        reader.poll(known)
    cluster.forget_requests()
    assert reader.poll(known) == {}
    assert cluster.requests == ["jobs/state"]
