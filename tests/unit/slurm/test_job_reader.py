"""The requests of a poll and of a search to a slurmctld that knows very many jobs."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from app.errors import SlurmBusy, SlurmUnavailable
from app.job_state import JobState
from app.slurm.client import SlurmClient
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.job_reader import JobReader
from app.slurm.reply import Reply
from app.slurm.request import Query
from app.slurm.session import Session
from app.slurm.state_list import StateList


class LargeCluster:
    """A session with a slurmctld of very many jobs; it records the requests that it gets."""

    def __init__(self, jobs: Mapping[int, Sequence[str]]) -> None:
        self.jobs = {job_id: list(state) for job_id, state in jobs.items()}
        self.comments: dict[int, str] = {}
        self.submitted: dict[int, datetime] = {}
        self.array_tasks: dict[int, list[tuple[int, int, str]]] = {}  # array id: job id, index, state
        self.broken: set[int] = set()  # whatever asks for one of these gets no answer
        self.unreadable: set[int] = set()  # their states are listed, but they cannot be read themselves
        self.is_busy = False
        self.has_states = True
        self.left: set[int] = set()  # listed, but gone when they are asked for
        self.requests: list[tuple[str, list[int]]] = []
        self.api = "v0.0.42"

    def dialect(self) -> Dialect:
        return Dialect(self.api)

    def get(self, path: str, query: Query = (), timeout: float | None = None) -> Reply:
        assert path != "jobs", "the list of all jobs is asked for"
        wanted = [int(value) for name, value in query if name == "job_id"]
        self.requests.append((path, wanted))
        if self.is_busy:
            raise SlurmBusy("all connections are busy")
        if path == "jobs/state" and not self.has_states:
            return Reply(404, {}, "no route")
        if path == "diag":
            return Reply(200, {"statistics": {"dbd_agent_queue_size": 0}}, "")
        if path == "jobs/state":
            self._break_off(wanted)
            return self._reply([item for job_id in wanted or self.jobs for item in self._states(job_id)])
        job_id = int(path.removeprefix("job/"))
        self._break_off([job_id])
        if job_id in self.unreadable:
            raise SlurmUnavailable("did not answer in time")
        if job_id not in self.jobs or job_id in self.left:
            return Reply(404, {"errors": [{"error_number": 2017, "error": "Invalid job id"}]}, "")
        return self._reply(self._details(job_id))

    def read_accounting(self, query: Query, timeout: float | None = None) -> Reply:
        return self._reply([])

    def single_reads(self) -> list[int]:
        return [int(path.removeprefix("job/")) for path, _ in self.requests if path.startswith("job/")]

    def _break_off(self, job_ids: Sequence[int]) -> None:
        if self.broken.intersection(job_ids):
            raise SlurmUnavailable("did not answer in time")

    def _states(self, job_id: int) -> list[dict[str, Any]]:
        tasks = self.array_tasks.get(job_id, ())
        split = [{"job_id": f"{own}_{index}", "state": [state]} for own, index, state in tasks]
        if split or job_id not in self.jobs:
            return split
        return [{"job_id": str(job_id), "state": self.jobs[job_id]}]

    def _details(self, job_id: int) -> list[dict[str, Any]]:
        user: dict[str, Any] = {"user_name": "alice", "comment": self.comments.get(job_id, "")}
        if job_id in self.submitted:
            user["submit_time"] = {"set": True, "number": int(self.submitted[job_id].timestamp()) + 1}
        tasks = self.array_tasks.get(job_id, ())
        split = [
            {**user, "job_id": own, "job_state": [state], "array_job_id": job_id, "array_task_id": index}
            for own, index, state in tasks
        ]
        return split or [{**user, "job_id": job_id, "job_state": self.jobs[job_id]}]

    def _reply(self, jobs: list[dict[str, Any]]) -> Reply:
        return Reply(200, {"jobs": jobs, "errors": []}, "")


def large_cluster(count: int = 43_000, ended: int = 0) -> LargeCluster:
    return LargeCluster({n: ["COMPLETED"] if n <= ended else ["RUNNING"] for n in range(1, count + 1)})


def client_of(session: Any) -> SlurmClient:
    return SlurmClient(session, clock_skew=0)


def test_poll_reads_thirty_ends_among_many_jobs_without_the_list_of_all() -> None:
    session = large_cluster(ended=30)
    news = client_of(session).poll(dict.fromkeys(range(1, 1001), JobState.RUNNING))
    assert {job_id for job_id, job in news.items() if job and job.job_state is JobState.COMPLETED} == set(
        range(1, 31)
    )
    assert len(session.requests) == 1 + 30


@pytest.mark.parametrize("api", [api for api in SUPPORTED_API_VERSIONS if Dialect(api).has_state_list])
def test_poll_costs_one_request_for_1200_jobs_and_one_for_each_change(api: str) -> None:
    session = large_cluster(12_000)
    session.api = api
    client = client_of(session)
    known = dict.fromkeys(session.jobs, JobState.RUNNING)
    for _ in range(2):
        session.requests.clear()
        assert client.poll(known) == {}
        assert [path for path, _ in session.requests] == ["jobs/state"] * 10
    session.jobs |= {5: ["COMPLETED"], 7_000: ["SUSPENDED"]}
    session.requests.clear()
    assert client.poll(known).keys() == {5, 7_000}
    assert session.single_reads() == [5, 7_000]
    assert len(session.requests) == 10 + 2


def test_poll_reads_a_bounded_number_of_jobs_and_comes_to_all_of_them() -> None:
    session = large_cluster(ended=2200)
    client = client_of(session)
    known = dict.fromkeys(range(1, 2201), JobState.RUNNING)
    for reads in (1000, 1000, 200):
        session.requests.clear()
        news = client.poll(known)
        assert len(session.single_reads()) == len(news) == reads
        known = {job_id: state for job_id, state in known.items() if job_id not in news}
    assert known == {}


def test_poll_names_the_jobs_whose_state_it_did_not_find_out() -> None:
    session = large_cluster(ended=1100)
    session.unreadable = {7}
    session.jobs[1200] = ["NONSENSE"]
    client = client_of(session)
    known = dict.fromkeys(range(1, 1301), JobState.RUNNING)
    news = client.poll(known)
    assert client.unread_jobs == set(range(1, 1101)) - news.keys() | {1200}
    session.jobs[1200] = ["RUNNING"]
    news |= client.poll(known)
    news |= client.poll({job_id: state for job_id, state in known.items() if job_id not in news})
    assert client.unread_jobs == {7}


def test_job_that_may_be_an_array_too_large_to_be_listed_is_unread() -> None:
    session = large_cluster(3)
    session.broken = {2}
    client = client_of(session)
    for _ in range(4):
        with suppress(SlurmUnavailable):
            client.poll(dict.fromkeys((1, 2, 3), JobState.RUNNING))
    assert client.unread_jobs == {2}


def test_poll_that_reads_nothing_names_all_jobs_as_unread() -> None:
    session = large_cluster(3)
    session.broken = {1, 2, 3}
    client = client_of(session)
    with pytest.raises(SlurmUnavailable):
        client.poll(dict.fromkeys((1, 2, 3), JobState.RUNNING))
    assert client.unread_jobs == {1, 2, 3}


def test_poll_of_changes_that_cannot_be_recorded_starves_no_other() -> None:
    session = large_cluster(ended=2200)
    client = client_of(session)
    known = dict.fromkeys(range(1, 2201), JobState.RUNNING)
    seen = {job_id for _ in range(3) for job_id in client.poll(known)}
    assert seen == set(known)


def test_read_goes_on_after_a_request_that_failed() -> None:
    session = large_cluster(30)
    session.broken = {11}
    assert client_of(session).read_jobs(range(1, 31)).keys() == set(range(1, 31)) - {11}


def test_read_ends_after_a_few_failures_and_reads_the_others_first_at_the_next_call() -> None:
    session = large_cluster(30)
    session.broken = set(range(1, 8))
    client = client_of(session)
    with pytest.raises(SlurmUnavailable):
        client.read_jobs(range(1, 8))
    assert len(session.single_reads()) == 2
    found: set[int] = set()
    for _ in range(4):
        with suppress(SlurmUnavailable):
            found |= client.read_jobs(range(1, 18)).keys()
    assert found == set(range(8, 18))


def test_read_goes_on_behind_the_job_whose_request_failed() -> None:
    session = large_cluster()
    session.broken = {1}
    client = client_of(session)
    assert client.read_jobs([1, 2, 3]).keys() == {2, 3}
    session.requests.clear()
    client.read_jobs([1, 2, 3])
    assert session.single_reads() == [1, 2, 3]


def test_poll_asks_last_and_for_fewer_where_a_request_for_states_failed() -> None:
    session = large_cluster(ended=2000)
    session.broken = {700}
    client = JobReader(cast(Session, session), 0, clock=lambda: 0.0)
    known = dict.fromkeys(range(1, 2001), JobState.RUNNING)
    noticed: set[int] = set()
    for _ in range(40):
        session.requests.clear()
        with suppress(SlurmUnavailable):  # nothing could be read in that cycle
            left = {job_id: state for job_id, state in known.items() if job_id not in noticed}
            noticed |= client.poll(left).keys()
        failed = [ids for path, ids in session.requests if path == "jobs/state" and 700 in ids]
        if noticed == known.keys() - {700}:
            break
    assert noticed == known.keys() - {700}
    assert failed == [[700]]
    session.broken.clear()
    assert client.poll({700: JobState.RUNNING}).keys() == {700}


def test_poll_of_ended_jobs_reads_none_of_them() -> None:
    session = large_cluster(ended=1000)
    session.jobs[2] = ["FAILED"]
    news = client_of(session).poll(dict.fromkeys(range(1, 1001), JobState.COMPLETED))
    assert news == {}
    assert session.single_reads() == []


def test_poll_tells_of_an_ended_job_that_is_in_the_queue_again() -> None:
    session = large_cluster(ended=10)
    session.jobs[4] = ["PENDING"]
    del session.jobs[5]
    news = client_of(session).poll(dict.fromkeys(range(1, 11), JobState.COMPLETED))
    assert {job_id: job and job.job_state for job_id, job in news.items()} == {4: JobState.PENDING, 5: None}


def test_poll_tells_of_an_ended_array_whose_task_is_in_the_queue_again() -> None:
    """As 24.11 answers: the task has an id of its own, and no word of its array's."""
    session = large_cluster(ended=10)
    session.array_tasks[10] = [(10, 3, "COMPLETED"), (9001, 1, "PENDING"), (9002, 2, "COMPLETED")]
    session.array_tasks[9] = [(9, 0, "COMPLETED")]
    news = client_of(session).poll({9: JobState.COMPLETED, 10: JobState.FAILED}, ended_arrays={9, 10})
    assert {job_id: job and job.job_state for job_id, job in news.items()} == {10: JobState.PENDING}


TAG = "slurm-proxy:lost"
USERS = ["alice"]


def test_search_finds_a_new_job_among_many_without_the_list_of_all() -> None:
    session = large_cluster()
    session.comments[42_990] = f"{TAG} mine"
    found = client_of(session).search(USERS, datetime.now(UTC), [TAG])
    assert [job.job_id for job in found.controller] == [42_990]
    assert len(session.single_reads()) == 11


def test_search_goes_on_where_the_last_one_ended_and_says_when_it_is_complete() -> None:
    session = large_cluster(2000)
    client = client_of(session)
    since = datetime.now(UTC)
    assert not client.search(USERS, since, [TAG], timeout=0.01).is_complete
    while not client.search(USERS, since, [TAG], timeout=0.05).is_complete:
        pass
    assert sorted(session.single_reads()) == list(range(1, 2001))
    session.requests.clear()
    assert client.search(USERS, since, [TAG]).is_complete
    assert session.single_reads() == []


def test_search_reads_again_what_it_read_before_the_submission() -> None:
    """Slurm reuses job ids, so that an older reading of an id proves nothing."""
    session = large_cluster(50)
    client = client_of(session)
    assert client.search(USERS, datetime.now(UTC), [TAG]).is_complete
    session.comments[7] = TAG
    found = client.search(USERS, datetime.now(UTC) + timedelta(seconds=0.001), [TAG])
    assert [job.job_id for job in found.controller] == [7]


def test_search_for_another_submission_trusts_what_was_read_for_the_first() -> None:
    session = large_cluster(50)
    session.comments |= {7: TAG, 9: "slurm-proxy:other"}
    client, since = client_of(session), datetime.now(UTC)
    assert client.search(USERS, since, ["slurm-proxy:none"]).is_complete
    found = client.search(USERS, since, [TAG, "slurm-proxy:other"])
    assert {job.job_id for job in found.controller} == {7, 9}


def test_search_of_a_job_that_has_just_left_slurmctld_is_complete() -> None:
    session = large_cluster(5)
    client = client_of(session)
    session.left = {3}
    found = client.search(USERS, datetime.now(UTC), [TAG])
    assert found.is_complete
    assert 3 not in found.controller_ids


def test_search_returns_new_jobs_without_a_tag_at_each_pass() -> None:
    session = large_cluster(50)
    since = datetime.now(UTC)
    session.submitted |= {7: since, 8: since, 9: since - timedelta(hours=1)}
    session.comments |= {7: "the site's", 8: "slurm-proxy:other"}
    client = client_of(session)
    for usernames, untagged in ((USERS, [7]), (USERS, [7]), (["bob"], [])):
        found = client.search(usernames, since, [TAG], until=since + timedelta(hours=1))
        assert found.is_complete
        assert [job.job_id for job in found.untagged] == untagged
    assert len(session.single_reads()) == 50


def test_search_is_not_set_back_by_a_search_for_a_later_submission() -> None:
    session = large_cluster(50)
    client, since = client_of(session), datetime.now(UTC)
    assert client.search(USERS, since, ["slurm-proxy:none"]).is_complete
    client.search(USERS, datetime.now(UTC) + timedelta(hours=1), ["slurm-proxy:later"], timeout=0.001)
    session.requests.clear()
    assert client.search(USERS, since, ["slurm-proxy:none"]).is_complete
    assert session.single_reads() == []


def test_search_that_slurmctld_breaks_off_keeps_what_it_read() -> None:
    session = large_cluster(50)
    session.broken = {20}
    session.comments[7] = TAG
    client, since = client_of(session), datetime.now(UTC)
    found = client.search(USERS, since, [TAG, "slurm-proxy:none"])
    assert [job.job_id for job in found.controller] == [7]
    assert not found.is_complete
    session.broken.clear()
    session.requests.clear()
    assert client.search(USERS, since, ["slurm-proxy:none"]).is_complete
    assert session.single_reads() == [20]


def test_search_raises_where_no_job_could_be_read() -> None:
    session = large_cluster(3)
    session.broken = {1, 2, 3}
    with pytest.raises(SlurmUnavailable):
        client_of(session).search(USERS, datetime.now(UTC), [TAG])


def test_poll_reads_ends_beside_an_ended_array_whose_states_never_come() -> None:
    session = large_cluster(ended=20)
    session.broken = {20}
    known = dict.fromkeys(range(1, 20), JobState.RUNNING) | {20: JobState.COMPLETED}
    assert client_of(session).poll(known, ended_arrays={20}).keys() == set(range(1, 20))


def test_poll_tells_of_missing_jobs_beside_one_that_can_never_be_read() -> None:
    session = large_cluster(ended=2)
    del session.jobs[1]
    session.unreadable = {2}
    assert client_of(session).poll(dict.fromkeys((1, 2), JobState.RUNNING)) == {1: None}


def test_poll_does_not_avoid_jobs_because_all_connections_were_busy() -> None:
    session = large_cluster(ended=900)
    session.is_busy = True
    client = client_of(session)
    known = dict.fromkeys(range(1, 901), JobState.COMPLETED)
    with pytest.raises(SlurmUnavailable):
        client.poll(known)
    session.is_busy = False
    session.requests.clear()
    client.poll(known)
    assert [len(ids) for _, ids in session.requests] == [900]


def test_poll_reads_an_array_whose_own_id_shows_no_change_at_intervals() -> None:
    """The list shows the state of the tasks that wait, while others of the array run."""
    session = large_cluster(0)
    for array_id in range(1, 301):
        session.jobs[array_id] = ["PENDING"]
        session.array_tasks[array_id] = [(array_id, 1, "PENDING"), (1000 + array_id, 0, "RUNNING")]
    now = [0.0]
    reader = JobReader(cast(Session, session), 0, clock=lambda: now[0])
    known = dict.fromkeys(range(1, 301), JobState.RUNNING)
    reads = []
    for seconds in (0.0, 5.0, 16.0):
        now[0] = seconds
        session.requests.clear()
        assert reader.poll(known) == {}
        reads.append(len(session.single_reads()))
    assert reads == [300, 0, 300]
    session.array_tasks[7] = [(7, 1, "COMPLETED"), (1007, 0, "COMPLETED")]
    news = reader.poll(known)
    assert {job_id: job and job.job_state for job_id, job in news.items()} == {7: JobState.COMPLETED}


def test_a_missing_list_of_states_is_asked_for_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer may have answered in a moment without slurmrestd."""
    session = large_cluster(5)
    states = StateList(session)  # type: ignore[arg-type]
    session.has_states = False
    assert states.read([1]) is None
    session.has_states = True
    assert states.read([1]) is None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert states.read([1]) is not None
