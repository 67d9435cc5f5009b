"""The search for all jobs with a tag, in slurmctld and in slurmdbd."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import SlurmAnswerTooLarge, SlurmUnavailable
from app.models.record import JOB_TAG
from app.slurm.accounting import AccountingReader
from app.slurm.dialect import Dialect
from app.slurm.job_reader import JobReader
from app.slurm.reply import Reply
from app.slurm.request import Query
from app.slurm.tagged_jobs import TaggedJobReader, TaggedJobs

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SINCE = NOW - timedelta(days=2)


class Cluster:
    """A session with jobs in slurmctld and in slurmdbd, which records its requests."""

    def __init__(self, api: str = "v0.0.42") -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.ended: list[tuple[datetime, dict[str, Any]]] = []
        self.failing: set[int] = set()
        self.queue = 0
        self.is_list_too_large = False
        self.accounting: Reply | None = None
        self.requests: list[str] = []
        self.windows: list[tuple[int, int]] = []
        self._api = api

    def dialect(self) -> Dialect:
        return Dialect(self._api)

    def put(self, job_id: int, comment: str, at: datetime = NOW, **fields: Any) -> None:
        base = {"job_id": job_id, "user_name": "alice", "job_state": ["RUNNING"], "comment": comment}
        self.jobs[job_id] = {**base, "submit_time": int(at.timestamp()), **fields}

    def end(self, job_id: int, comment: str, at: datetime = NOW) -> None:
        times = {"submission": int(at.timestamp())}
        job = {"job_id": job_id, "user": "alice", "state": {"current": ["COMPLETED"]}, "time": times}
        self.ended.append((at, {**job, "comment": {"job": comment}}))

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        self.requests.append(path)
        if path == "diag":
            return Reply(200, {"statistics": {"dbd_agent_queue_size": self.queue}}, "")
        if path == "jobs" and self.is_list_too_large:
            raise SlurmAnswerTooLarge("it has more than 200 MB")
        if path == "jobs":
            return Reply(200, {"jobs": list(self.jobs.values()), "errors": []}, "")
        if path == "jobs/state":
            states = [{"job_id": str(job_id), "state": ["RUNNING"]} for job_id in self.jobs]
            return Reply(200, {"jobs": states, "errors": []}, "")
        job_id = int(path.removeprefix("job/"))
        if job_id in self.failing:
            raise SlurmUnavailable("did not answer in time")
        parts = [job for job in self.jobs.values() if job_id in (job["job_id"], job.get("array_job_id"))]
        return Reply(200, {"jobs": parts, "errors": []}, "")

    def read_accounting(self, query: Query, timeout: float | None = None) -> Reply:
        if self.accounting is not None:
            return self.accounting
        start, end = (int(str(value).removeprefix("uts")) for _, value in query)
        self.windows.append((start, end))
        jobs = [job for at, job in self.ended if start <= at.timestamp() <= end]
        return Reply(200, {"jobs": jobs, "errors": []}, "")


def read(cluster: Cluster) -> TaggedJobs:
    session: Any = cluster
    accounting = AccountingReader(session, 60)
    reader = TaggedJobReader(session, JobReader(session, 60), accounting)
    return reader.read(SINCE, NOW + timedelta(minutes=1), lambda *_: None)


def ids(found: TaggedJobs) -> list[int]:
    return sorted(job.job_id for job in found.jobs)


@pytest.mark.parametrize("api", ["v0.0.38", "v0.0.42"])
def test_tagged_jobs_of_both_daemons_are_found_once(api: str) -> None:
    cluster = Cluster(api)
    cluster.put(1, f"{JOB_TAG}one")
    cluster.put(2, "another comment")
    cluster.put(3, f"{JOB_TAG}old", SINCE - timedelta(seconds=1))
    cluster.end(1, "")
    cluster.end(4, f"{JOB_TAG}four and more", NOW - timedelta(days=1))
    cluster.end(5, "", NOW - timedelta(days=1))
    found = read(cluster)
    assert ids(found) == [1, 4]
    assert (found.unread, found.faults, found.without_comment) == (0, [], 1)


def test_windows_of_slurmdbd_adjoin_and_fit_the_number_of_jobs() -> None:
    cluster = Cluster()
    for number in range(1100):
        cluster.end(number + 1, f"{JOB_TAG}{number}", SINCE + timedelta(hours=20))
    read(cluster)
    starts, ends = zip(*cluster.windows, strict=True)
    assert starts[0] == SINCE.timestamp()
    assert ends[-1] == (NOW + timedelta(minutes=1)).timestamp()
    assert starts[1:] == ends[:-1]
    lengths = [(end - start) // 3600 for start, end in cluster.windows]
    busy = next(number for number, (start, end) in enumerate(cluster.windows) if end > start + 15 * 3600)
    assert lengths[:3] == [1, 2, 4]
    assert lengths[busy + 1] == lengths[busy] // 2
    assert max(lengths) <= 24


def test_the_tasks_of_an_array_are_not_read_again() -> None:
    cluster = Cluster()
    for job_id in (12, 11, 10):
        cluster.put(job_id, f"{JOB_TAG}array", array_job_id=12)
    assert ids(read(cluster)) == [10, 11, 12]
    assert [path for path in cluster.requests if path.startswith("job/")] == ["job/12"]


def test_a_job_that_cannot_be_read_is_counted() -> None:
    cluster = Cluster()
    for job_id in range(1, 20):
        cluster.put(job_id, f"{JOB_TAG}{job_id}")
    cluster.failing = {3, 9}
    found = read(cluster)
    assert (found.unread, len(found.jobs)) == (2, 17)
    cluster.failing = set(range(10, 20))
    with pytest.raises(SlurmUnavailable):
        read(cluster)


def test_a_slurmdbd_that_is_behind_or_away_is_reported() -> None:
    cluster = Cluster()
    cluster.queue = 3
    assert read(cluster).faults == ["slurmctld has not sent everything to slurmdbd yet"]
    cluster.accounting = Reply(502, {"errors": [{"error_number": 7000, "error": "no connection"}]}, "")
    cluster.queue = 0
    (fault,) = read(cluster).faults
    assert fault.startswith("slurmdbd was not searched to the end: slurmdbd does not answer")


def test_a_list_that_is_too_large_leaves_what_slurmdbd_knows() -> None:
    cluster = Cluster("v0.0.38")
    cluster.is_list_too_large = True
    cluster.end(4, f"{JOB_TAG}four")
    found = read(cluster)
    assert ids(found) == [4]
    assert found.faults == ["slurmctld has too many jobs to list them: it has more than 200 MB"]


def test_a_cluster_without_slurmdbd_is_searched_in_slurmctld_alone() -> None:
    cluster = Cluster()
    cluster.put(1, f"{JOB_TAG}one")
    cluster.accounting = Reply(404, {}, "")
    found = read(cluster)
    assert (ids(found), found.faults) == ([1], [])
