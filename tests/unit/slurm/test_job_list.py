"""Requests of a poll to a server of 22.05, which has no list of states."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.errors import SlurmAnswerTooLarge, SlurmUnavailable
from app.job_state import JobState
from app.slurm.dialect import Dialect
from app.slurm.job_reader import JobReader
from app.slurm.reply import Reply
from app.slurm.request import Query


class OlderCluster:
    """A session with a slurmctld of 22.05; it records its requests, which take the time of a fake clock."""

    def __init__(self, jobs: Mapping[int, str], list_seconds: float = 0.1) -> None:
        self.jobs = dict(jobs)
        self.list_seconds = list_seconds
        self.list_bytes = 1000
        self.array_records: dict[int, int] = {}  # how many records an array has
        self.requests: list[str] = []
        self.has_changed = True
        self.timeout = 30.0
        self.now = 1000.0

    def dialect(self) -> Dialect:
        return Dialect("v0.0.38")

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        self.requests.append(path)
        if path == "jobs":
            return self._list(max_bytes, is_delta=bool(query))
        job_id = int(path.removeprefix("job/"))
        records = self.array_records.get(job_id, 1)
        self.now += 0.0014 * records
        if job_id not in self.jobs:
            return Reply(500, {"errors": [{"error_number": 2017, "error": "Invalid job id"}]}, "")
        return self._reply([job_id] * records)

    def _list(self, max_bytes: int | None, *, is_delta: bool) -> Reply:
        if is_delta and not self.has_changed:
            return Reply(304, {}, "")
        self.now += min(self.list_seconds, self.timeout)
        if self.list_seconds > self.timeout:
            raise SlurmUnavailable("slurmrestd did not answer in time or broke off")
        assert max_bytes is not None
        if self.list_bytes > max_bytes:
            raise SlurmAnswerTooLarge("the answer of slurmrestd is too large")
        return self._reply(self.jobs)

    def _reply(self, job_ids: Any) -> Reply:
        jobs = [{"job_id": n, "user_name": "alice", "job_state": self.jobs[n]} for n in job_ids]
        return Reply(200, {"jobs": jobs, "errors": []}, "")

    def take_requests(self) -> list[str]:
        taken, self.requests = self.requests, []
        return taken


def reader_of(cluster: OlderCluster) -> JobReader:
    session: Any = cluster
    return JobReader(session, 0, clock=lambda: cluster.now)


def running(count: int) -> dict[int, JobState]:
    return dict.fromkeys(range(1, count + 1), JobState.RUNNING)


def cluster_of(count: int, list_seconds: float = 0.1) -> OlderCluster:
    return OlderCluster(dict.fromkeys(range(1, count + 1), "RUNNING"), list_seconds)


def test_list_without_changes_does_not_show_the_state_of_an_unreadable_job() -> None:
    cluster = cluster_of(10)
    cluster.jobs[3] = "NONSENSE"
    reader = reader_of(cluster)
    reader.poll(running(10))
    cluster.has_changed = False
    reader.poll(running(10))
    assert reader.unread == {3}
    cluster.has_changed, cluster.jobs[3] = True, "RUNNING"
    reader.poll(running(10))
    assert reader.unread == set()


def test_job_that_changed_before_it_was_polled_is_found_although_the_list_has_not_changed_since() -> None:
    """Its record may be stored long after Slurm took the job, while other jobs are polled."""
    cluster = cluster_of(10)
    reader = reader_of(cluster)
    cluster.jobs[7] = "COMPLETED"
    assert reader.poll(running(6)) == {}
    cluster.has_changed = False
    for _ in range(2):
        assert reader.poll(running(8)).keys() == {7}, "it is not recorded yet"
    assert reader.poll(running(6)) == {}


def test_job_whose_record_shows_another_state_than_before_is_compared_with_the_list_again() -> None:
    cluster = cluster_of(10)
    reader = reader_of(cluster)
    assert reader.poll(running(10)) == {}
    cluster.has_changed = False
    assert reader.poll({**running(10), 3: JobState.PENDING}).keys() == {3}


@pytest.mark.parametrize("ours", [1, 100, 1000])
def test_poll_of_a_small_cluster_is_one_list_however_many_jobs_are_ours(ours: int) -> None:
    cluster = cluster_of(1000, list_seconds=0.2)
    reader = reader_of(cluster)
    for _ in range(3):
        assert reader.poll(running(ours)) == {}
    assert cluster.take_requests() == ["jobs"] * 3


def test_poll_on_a_slow_machine_reads_the_list_of_few_jobs() -> None:
    cluster = cluster_of(300, list_seconds=3)
    reader = reader_of(cluster)
    for _ in range(3):
        assert reader.poll(running(300)) == {}
    assert cluster.take_requests() == ["jobs"] * 3


def test_poll_without_changes_costs_one_request_without_an_answer() -> None:
    cluster = cluster_of(40_000, list_seconds=8)
    cluster.list_bytes = 1
    reader = reader_of(cluster)
    known = running(40_000)
    assert reader.poll(known) == {}
    cluster.has_changed = False
    before = cluster.now
    assert reader.poll(known) == {}
    assert (cluster.requests, cluster.now) == (["jobs", "jobs"], before)


def test_poll_of_few_jobs_in_a_large_cluster_reads_them_one_by_one() -> None:
    cluster = cluster_of(10_000, list_seconds=2)
    reader = reader_of(cluster)
    reader.poll(running(100))
    assert cluster.take_requests() == ["jobs"]
    cluster.jobs |= {7: "COMPLETED"}
    del cluster.jobs[8]
    news = reader.poll(running(100))
    assert {job_id: job and job.job_state for job_id, job in news.items()} == {7: JobState.COMPLETED, 8: None}
    assert sorted(cluster.take_requests()) == sorted(f"job/{n}" for n in range(1, 101))


def test_an_expensive_list_is_tried_again_after_ten_minutes() -> None:
    cluster = cluster_of(10_000, list_seconds=2)
    reader = reader_of(cluster)
    reader.poll(running(10))
    cluster.take_requests()
    cluster.jobs = dict.fromkeys(range(1, 1001), "RUNNING")
    cluster.now += 599 - 2
    reader.poll(running(10))
    assert "jobs" not in cluster.take_requests()
    cluster.now += 10
    for _ in range(2):
        reader.poll(running(10))
    assert cluster.take_requests() == ["jobs"] * 2


def test_a_list_that_is_too_large_is_not_asked_for_again_in_an_hour_and_no_end_is_missed() -> None:
    cluster = cluster_of(43_000, list_seconds=8)
    cluster.list_bytes = 150_000_000
    cluster.jobs |= dict.fromkeys(range(1, 3001), "COMPLETED")
    reader = reader_of(cluster)
    known = running(3000)
    polls = 0
    while known:
        news = reader.poll(known)
        known = {job_id: state for job_id, state in known.items() if job_id not in news}
        polls += 1
        cluster.now += 10
    assert polls == 3, "a thousand jobs a poll"
    assert cluster.take_requests().count("jobs") == 1


def test_a_list_that_takes_longer_than_the_time_out_stops_no_poll() -> None:
    cluster = cluster_of(43_000, list_seconds=60)
    reader = reader_of(cluster)
    with pytest.raises(SlurmUnavailable):
        reader.poll(running(50))
    cluster.jobs[7] = "FAILED"
    assert reader.poll(running(50)).keys() == {7}


def test_array_of_many_records_is_read_less_often_than_other_jobs() -> None:
    cluster = cluster_of(10_000, list_seconds=60)
    cluster.array_records[1] = 500
    reader = reader_of(cluster)
    with pytest.raises(SlurmUnavailable):
        reader.poll(running(5))
    cluster.take_requests()
    for _ in range(20):
        cluster.now += 1
        assert reader.poll(running(5)) == {}
    requests = cluster.take_requests()
    assert requests.count("job/2") == 20
    assert 1 <= requests.count("job/1") <= 3


def test_ended_jobs_are_read_one_by_one_at_a_lower_rate_than_open_ones() -> None:
    cluster = cluster_of(10_000, list_seconds=60)
    cluster.jobs |= dict.fromkeys(range(1, 501), "COMPLETED")
    reader = reader_of(cluster)
    known = running(600) | dict.fromkeys(range(1, 501), JobState.COMPLETED)
    with pytest.raises(SlurmUnavailable):
        reader.poll(known)
    cluster.take_requests()
    seen: set[str] = set()
    for _ in range(5):
        reader.poll(known)
        requests = cluster.take_requests()
        assert len(requests) == 100 + 100
        seen |= set(requests)
    assert len(seen) == 600
