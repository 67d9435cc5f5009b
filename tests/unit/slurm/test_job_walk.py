"""What a search for lost jobs reads, and when it proves that there are none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.slurm.client import SlurmClient
from app.slurm.dialect import Dialect
from app.slurm.reply import Reply
from app.slurm.request import Query

TAG = "slurm-proxy:lost"
NOW = datetime.now(UTC).replace(microsecond=0)
SKEW = timedelta(minutes=1)
SINCE = NOW - timedelta(minutes=4)  # when the task was reserved
UNTIL = NOW - timedelta(minutes=1)  # when its submission has expired


class Slurmctld:
    """A session with a slurmctld whose jobs have ids and submit times; it counts the jobs that are read."""

    def __init__(self) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.broken: set[int] = set()
        self.read: list[int] = []
        self.lists = 0

    def add(self, job_id: int, submitted: datetime, **fields: Any) -> None:
        time = {"set": True, "number": int(submitted.timestamp())}
        self.jobs[job_id] = {"job_id": job_id, "user_name": "alice", "submit_time": time, **fields}

    def add_many(self, first: int, last: int, begin: datetime, end: datetime) -> None:
        """Add jobs whose ids and submit times rise together."""
        step = (end - begin) / (last - first + 1)
        for job_id in range(first, last + 1):
            self.add(job_id, begin + step * (job_id - first))

    def dialect(self) -> Dialect:
        return Dialect("v0.0.42")

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        if path == "diag":
            return Reply(200, {"statistics": {"dbd_agent_queue_size": 0}}, "")
        if path == "jobs/state":
            self.lists += 1
            return self._reply([{"job_id": str(job_id), "state": ["RUNNING"]} for job_id in self.jobs])
        assert path != "jobs", "the list of all jobs is asked for"
        job_id = int(path.removeprefix("job/"))
        self.read.append(job_id)
        if job_id in self.broken:
            raise SlurmUnavailable("did not answer in time")
        return self._reply([{**self.jobs[job_id], "job_state": ["RUNNING"]}])

    def read_accounting(self, query: Query, timeout: float | None = None) -> Reply:
        return self._reply([])

    def _reply(self, jobs: list[dict[str, Any]]) -> Reply:
        return Reply(200, {"jobs": jobs, "errors": []}, "")


def busy_cluster() -> Slurmctld:
    """10,000 jobs of two hours, one every 0.7 s, without the lost one."""
    slurmctld = Slurmctld()
    slurmctld.add_many(1_033_000, 1_042_999, NOW - timedelta(hours=2), NOW)
    return slurmctld


def client_of(slurmctld: Slurmctld) -> SlurmClient:
    session: Any = slurmctld
    return SlurmClient(session, clock_skew=SKEW.total_seconds())


def is_proven(slurmctld: Slurmctld, client: SlurmClient | None = None) -> bool:
    """Return whether one search proves that there is no other job; it finds none."""
    found = (client or client_of(slurmctld)).search(["alice"], SINCE, [TAG], until=UNTIL)
    assert found.controller == []
    return found.is_complete_until(UNTIL)


def test_absence_on_a_busy_cluster_is_proven_by_the_jobs_that_came_since() -> None:
    slurmctld = busy_cluster()
    assert is_proven(slurmctld)
    earliest = (SINCE - SKEW).timestamp()
    came_since = sum(job["submit_time"]["number"] >= earliest for job in slurmctld.jobs.values())
    assert came_since - 2 <= len(slurmctld.read) <= came_since + 2 < 500
    assert slurmctld.lists == 1


def test_each_job_is_read_once_for_one_reservation() -> None:
    slurmctld = busy_cluster()
    client = client_of(slurmctld)
    client.search(["alice"], SINCE, [TAG])
    slurmctld.read.clear()
    slurmctld.add(1_043_000, NOW)
    assert is_proven(slurmctld, client)
    read = slurmctld.read
    assert 1_043_000 in read
    assert len(read) < 500


def test_job_is_found_among_those_that_came_since() -> None:
    slurmctld = busy_cluster()
    slurmctld.jobs[1_042_900]["comment"] = TAG
    found = client_of(slurmctld).search(["alice"], SINCE, [TAG])
    assert [job.job_id for job in found.controller] == [1_042_900]
    assert len(slurmctld.read) == 100


def test_search_that_proves_nothing_ends_at_the_first_older_job() -> None:
    slurmctld = Slurmctld()
    slurmctld.add_many(1, 5000, NOW - timedelta(hours=1), SINCE - 2 * SKEW)
    found = client_of(slurmctld).search(["alice"], SINCE, [TAG])
    assert slurmctld.read == [5000]
    assert not found.is_complete
    assert found.complete_until is None


def test_absence_on_a_quiet_cluster_is_proven_by_reading_all_jobs() -> None:
    """The lost job may have a low id: Slurm may have begun to count again with it."""
    slurmctld = Slurmctld()
    slurmctld.add_many(1, 300, NOW - timedelta(hours=1), SINCE - 2 * SKEW)
    assert is_proven(slurmctld)
    assert sorted(slurmctld.read) == list(range(1, 301))


def test_job_with_a_low_id_after_the_highest_is_found_before_its_absence_counts_as_proven() -> None:
    slurmctld = Slurmctld()
    slurmctld.add_many(60_000, 60_300, NOW - timedelta(hours=1), SINCE - 2 * SKEW)
    slurmctld.add(1, SINCE + SKEW, comment=TAG)
    slurmctld.add_many(2, 50, SINCE + SKEW, NOW)
    found = client_of(slurmctld).search(["alice"], SINCE, [TAG], until=UNTIL)
    assert [job.job_id for job in found.controller] == [1]


def test_absence_after_a_lost_state_is_proven_by_reading_all_jobs() -> None:
    slurmctld = Slurmctld()
    slurmctld.add_many(1, 200, SINCE, NOW)
    assert is_proven(slurmctld)
    assert len(slurmctld.read) == 200


def proof_with(at_the_top: dict[str, Any], job_id: int = 20_000) -> bool:
    """Return whether a job at the top proves the absence among jobs that cannot all be read in time."""
    slurmctld = Slurmctld()
    slurmctld.add_many(1, 500, NOW - timedelta(hours=1), SINCE - 2 * SKEW)
    slurmctld.add(job_id, **at_the_top)
    slurmctld.broken = {1}  # so that reading all jobs proves nothing
    return is_proven(slurmctld)


def test_one_later_job_with_a_higher_id_is_a_proof() -> None:
    assert proof_with({"submitted": NOW})


@pytest.mark.parametrize(
    "fields",
    [
        {"submitted": UNTIL - timedelta(seconds=1)},
        {"submitted": NOW, "restart_cnt": 1},
        {"submitted": NOW, "array_job_id": 7, "array_task_id": 3},
    ],
    ids=["submitted too early", "requeued", "task of an array"],
)
def test_job_whose_id_may_be_older_than_the_last_submission_is_no_proof(fields: dict[str, Any]) -> None:
    assert not proof_with(fields)


def test_ids_of_a_federation_are_no_proof() -> None:
    assert not proof_with({"submitted": NOW}, job_id=2**26 + 5)


def test_boundary_must_be_of_the_last_hour() -> None:
    slurmctld = Slurmctld()
    slurmctld.add_many(1, 5, NOW - timedelta(days=9), NOW - timedelta(days=8))
    slurmctld.add(20_000, NOW)
    slurmctld.broken = {1}
    assert not is_proven(slurmctld)


def test_task_of_an_array_is_no_boundary() -> None:
    """Its id is newer than its submission: the lost job may have a lower one."""
    slurmctld = busy_cluster()
    slurmctld.jobs[1_042_950] |= {"array_job_id": 7, "array_task_id": 3}
    slurmctld.jobs[1_042_950]["submit_time"] = {"set": True, "number": int((SINCE - 2 * SKEW).timestamp())}
    slurmctld.jobs[1_042_900]["comment"] = TAG
    found = client_of(slurmctld).search(["alice"], SINCE, [TAG])
    assert [job.job_id for job in found.controller] == [1_042_900]


def test_job_that_could_not_be_read_leaves_the_absence_unproven() -> None:
    slurmctld = busy_cluster()
    slurmctld.broken = {1_042_900}
    client = client_of(slurmctld)
    assert not is_proven(slurmctld, client)
    slurmctld.broken.clear()
    slurmctld.read.clear()
    assert is_proven(slurmctld, client)
    assert 1_042_900 in slurmctld.read


def test_witness_must_be_of_the_same_hours_as_the_boundary() -> None:
    slurmctld = Slurmctld()
    since = NOW - timedelta(hours=5)
    slurmctld.add(1, since - timedelta(hours=9))
    slurmctld.add(2, since - timedelta(minutes=30))
    slurmctld.add(3, NOW)
    slurmctld.broken = {1}
    found = client_of(slurmctld).search(["alice"], since, [TAG], until=since + timedelta(minutes=3))
    assert not found.is_complete_until(since + timedelta(minutes=3))
    slurmctld.add(4, since + timedelta(minutes=10))
    found = client_of(slurmctld).search(["alice"], since, [TAG], until=since + timedelta(minutes=3))
    assert found.is_complete_until(since + timedelta(minutes=3))
    assert not found.is_complete_until(since + timedelta(minutes=11))
