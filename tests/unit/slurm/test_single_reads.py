"""Reading jobs one by one: how many at once, in which order, and what a failure stops."""

import threading
import time
from typing import Any

import pytest

from app.errors import SlurmTokenRefused, SlurmUnavailable
from app.slurm.reply import Reply
from app.slurm.request import Query
from app.slurm.single_reads import SingleReader


class SlowCluster:
    """A session that takes its time, and counts the requests that it has at once."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds = seconds
        self.at_once = 0
        self.most_at_once = 0
        self.read: list[int] = []
        self.failures: dict[int, Exception] = {}
        self._lock = threading.Lock()

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        job_id = int(path.removeprefix("job/"))
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.read.append(job_id)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if job_id in self.failures:
            raise self.failures[job_id]
        job = {"job_id": job_id, "user_name": "alice", "job_state": ["RUNNING"]}
        return Reply(200, {"jobs": [job], "errors": []}, "")


def reader_of(cluster: SlowCluster) -> SingleReader:
    session: Any = cluster
    return SingleReader(session)


def test_three_jobs_are_read_at_once_and_each_of_them_once() -> None:
    cluster = SlowCluster()
    found = reader_of(cluster).read(range(1, 101))
    assert found.keys() == set(range(1, 101)) == set(cluster.read)
    assert len(cluster.read) == 100
    assert cluster.most_at_once == 3


def test_few_jobs_are_read_one_after_the_other() -> None:
    cluster = SlowCluster()
    reader_of(cluster).read(range(1, 6))
    assert cluster.most_at_once == 1


def test_no_thread_is_left_after_reading() -> None:
    reader_of(SlowCluster()).read(range(1, 101))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("slurm-read")]


def test_a_failed_read_stops_no_other() -> None:
    cluster = SlowCluster()
    cluster.failures[50] = SlurmUnavailable("did not answer in time")
    assert reader_of(cluster).read(range(1, 101)).keys() == set(range(1, 101)) - {50}


def test_reads_end_soon_where_slurm_is_down() -> None:
    cluster = SlowCluster()
    cluster.failures = {n: SlurmUnavailable("slurmctld does not answer") for n in range(1, 1001)}
    with pytest.raises(SlurmUnavailable):
        reader_of(cluster).read(range(1, 1001))
    assert len(cluster.read) <= 4


def test_a_refused_token_is_raised_from_every_thread() -> None:
    cluster = SlowCluster()
    cluster.failures = {n: SlurmTokenRefused("the token") for n in range(1, 1001)}
    with pytest.raises(SlurmTokenRefused):
        reader_of(cluster).read(range(1, 1001))
    assert len(cluster.read) <= 3


def test_reads_come_to_every_job_before_any_is_read_again() -> None:
    cluster = SlowCluster(seconds=0)
    reader = reader_of(cluster)
    for _ in range(3):
        reader.read(range(1, 31), limit=10)
    assert sorted(cluster.read) == list(range(1, 31))
