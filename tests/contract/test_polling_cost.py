"""What polls and searches cost each release of Slurm: requests and bytes, never seconds."""

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.job_state import JobState
from app.models.task import Task
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.dialect import Dialect
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from tests.conftest import REAL_CLUSTERS, Cluster, not_covered, until
from tests.support.splitting_network import SplittingNetwork
from tests.support.tasks import make_task, new_uuid

ARRAY_TASKS = 1000  # as many as Slurm allows by default
DIALECTS = [
    pytest.param((cluster, api), id=api, marks=pytest.mark.real)
    for cluster, api in (
        ("distribution", "v0.0.38"),
        ("given", "v0.0.40"),
        ("given", "v0.0.42"),
        ("next", "v0.0.43"),
        ("next", "v0.0.45"),
    )
]


class CountingConnection(Connection):
    """A connection that keeps each request, and the size of its answer."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        super().__init__(url, TokenMint(cluster.key, 300), connect_timeout=3, read_timeout=30)
        self.requests: list[str] = []
        self.bytes = 0

    def send(self, request: SlurmRequest) -> Reply:
        reply = super().send(request)
        self.requests.append(f"{request.method} {request.path.split('/', 3)[3]}")
        self.bytes += len(json.dumps(reply.body))
        return reply

    def forget(self) -> None:
        self.requests.clear()
        self.bytes = 0


class SessionOfDialect(Session):
    """A session that uses one API version, although the server may have newer ones."""

    def __init__(self, connection: Connection, api: str) -> None:
        super().__init__(connection, "slurm")
        self._api = api

    def dialect(self) -> Dialect:
        return Dialect(self._api)


class Site:
    """A client without a tolerance for clocks, and the held jobs that a test has submitted."""

    def __init__(self, cluster: Cluster, url: str = "", api: str = "") -> None:
        self.cluster = cluster
        self.connection = CountingConnection(cluster, url or cluster.url)
        session = SessionOfDialect(self.connection, api) if api else Session(self.connection, "slurm")
        self.client = SlurmClient(session, clock_skew=0)
        self.client.discover_dialect()
        self._job_ids: list[int] = []

    def submit(self, tag: str = "", **slurm: Any) -> int:
        options = {"mem": 10, "hold": True, **slurm}
        task = Task.model_validate(make_task(self.cluster.user, slurm=options))
        expires = datetime.now(UTC) + timedelta(minutes=1)
        job_id, _ = self.client.submit(task, "true", tag or f"slurm-proxy:{task.uuid}", expires)
        self._job_ids.append(job_id)
        return job_id

    def poll(self, known: dict[int, JobState]) -> list[str]:
        """Poll, and return the requests that this took."""
        self.connection.forget()
        assert self.client.poll(known) == {}
        return self.connection.requests

    def read_changes(self, known: dict[int, JobState]) -> dict[int, JobState]:
        """Poll, and return the states of the jobs that changed."""
        self.connection.forget()
        return {job_id: job.job_state for job_id, job in self.client.poll(known).items() if job}

    def cancel(self, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            self.client.send_raw("DELETE", f"job/{job_id}", user=self.cluster.user)

    def close(self) -> None:
        self.cancel(self._job_ids)
        self.client.close()


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Site]:
    site = Site(cluster)
    yield site
    site.close()


@pytest.fixture(params=DIALECTS)
def site_of_dialect(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site for each dialect of a real cluster."""
    name, api = request.param
    cluster = request.getfixturevalue(f"{name}_cluster")
    site = Site(cluster, api=api)
    if site.client.send_raw("GET", "ping").status == 404:
        not_covered(request, f"Slurm with {api}", f"{cluster.name} does not offer it")
    yield site
    site.close()


def test_poll_costs_one_request_for_the_states_and_one_for_each_change(site_of_dialect: Site) -> None:
    site, requests = site_of_dialect, site_of_dialect.connection.requests
    jobs = [site.submit() for _ in range(20)]
    ended, changed = jobs[:3], jobs[3:6]
    known = dict.fromkeys(jobs, JobState.PENDING)
    has_states = "GET jobs/state" in site.poll(known)
    states = ["GET jobs/state"] if has_states else ["GET jobs"]
    assert requests == states
    assert site.poll(known) == states

    as_known = known | dict.fromkeys(changed, JobState.RUNNING)
    assert site.read_changes(as_known) == dict.fromkeys(changed, JobState.PENDING)
    assert sorted(requests) == sorted(states + [f"GET job/{job_id}" for job_id in changed] * has_states)

    site.cancel(ended)
    assert site.read_changes(known) == dict.fromkeys(ended, JobState.CANCELLED)
    assert sorted(requests) == sorted(states + [f"GET job/{job_id}" for job_id in ended] * has_states)
    assert site.read_changes(known).keys() == set(ended), "they are not recorded yet"
    assert requests == states, "an end is read once"
    site.connection.forget()
    site.client.read_accounting(ended)
    assert len(requests) == 1


def test_poll_of_waiting_jobs_is_one_request(site: Site) -> None:
    known = {site.submit(): JobState.PENDING for _ in range(30)}
    assert [len(site.poll(known)) for _ in range(3)] == [1, 1, 1]
    assert site.connection.requests[0] in ("GET jobs/state", "GET jobs")


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_network_that_splits_long_requests_hides_no_job(cluster: Cluster) -> None:
    with SplittingNetwork(cluster.url) as network:
        site = Site(cluster, network.url)
        first, last = site.submit(), site.submit()
        unknown = range(last + 100_000, last + 100_600)
        known = dict.fromkeys([first, *unknown, last], JobState.PENDING)
        for _ in range(2):
            assert site.client.poll(known) == dict.fromkeys(unknown)
            assert site.client.unread_jobs == set()
        assert site.client.read_accounting(known) is not None
        assert site.client.outage is None
        site.close()


def test_waiting_array_of_many_tasks_costs_one_record_a_poll(site_of_dialect: Site) -> None:
    site = site_of_dialect
    known = {site.submit(array=f"0-{ARRAY_TASKS - 1}"): JobState.PENDING}
    for _ in range(3):
        # After each reading the array rests for twenty times as long, which is seconds on a busy machine.
        requests = until(lambda: site.poll(known), what="a poll that asks for the array")
        assert requests in (["GET jobs"], [f"GET job/{next(iter(known))}"])
        if requests != ["GET jobs"]:  # 22.05 has one list of all jobs, with one record for the array
            assert site.connection.bytes < 20_000


@pytest.mark.parametrize("cluster", ["local", *REAL_CLUSTERS], indirect=True)
def test_search_for_a_missing_job_reads_only_newer_jobs(site: Site) -> None:
    oldest, boundary = site.submit(), site.submit()
    time.sleep(1.1)  # Slurm has whole seconds
    since = site.client.read_controller_time()
    time.sleep(1.1)
    later = site.submit()
    time.sleep(1.1)
    end = site.client.read_controller_time()
    time.sleep(1.1)
    site.submit()
    site.connection.forget()
    tag = f"slurm-proxy:{new_uuid()}"
    search = site.client.search([site.cluster.user], since, [tag], until=end)
    assert search.controller == []
    assert search.is_complete_until(end)
    if "GET jobs/state" in site.connection.requests:  # 22.05 has no list of ids
        assert f"GET job/{later}" in site.connection.requests
        assert f"GET job/{boundary}" in site.connection.requests
        assert f"GET job/{oldest}" not in site.connection.requests
