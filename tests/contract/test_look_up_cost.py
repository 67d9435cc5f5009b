"""How many requests look-ups send to each release of Slurm."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.job_state import JobState
from app.lifecycle.known_facts import JobFacts
from app.lifecycle.present_facts import PresentFacts
from app.models.record import TaskRecord, utc_now
from app.slurm.request_budget import RequestBudget
from tests.conftest import Cluster, not_covered
from tests.contract.test_polling_cost import DIALECTS, Site

JOBS = 30


class Callers:
    """Look-ups of held jobs by one process, with the facts of its first reading in their records."""

    def __init__(self, site: Site, per_second: float, jobs: int, **slurm: Any) -> None:
        self.site = site
        self.seconds = 100.0
        budget = RequestBudget(per_second, self.clock)
        self._facts = PresentFacts(site.client, budget, self.clock)
        self.records = {
            job_id: self._record(job_id) for job_id in [site.submit(**slurm) for _ in range(jobs)]
        }
        site.connection.forget()

    def clock(self) -> float:
        return self.seconds

    def ask(self, job_id: int) -> JobFacts:
        return self._facts.find(self.records[job_id], job_id, None)

    def ask_all(self) -> list[JobFacts]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.ask, self.records))

    def _record(self, job_id: int) -> TaskRecord:
        job = self.site.client.read_job(job_id)
        assert job is not None
        return TaskRecord(
            task={"uuid": f"task-{job_id}"},
            slurm_username=self.site.cluster.user,
            slurm_job_id=job_id,
            slurm_job_state=JobState.PENDING,
            created_at=utc_now(),
            updated_at=utc_now(),
            job=job,
        )


@pytest.fixture(params=[pytest.param(("local", ""), id="local"), *DIALECTS])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site for each dialect of every cluster."""
    name, api = request.param
    cluster: Cluster = request.getfixturevalue(f"{name}_cluster")
    site = Site(cluster, api=api)
    if site.client.send_raw("GET", "ping").status == 404:
        not_covered(request, f"Slurm with {api}", f"{cluster.name} does not offer it")
    yield site
    site.close()


def test_look_ups_of_many_jobs_cost_what_the_budget_allows(site: Site) -> None:
    callers = Callers(site, 1, JOBS)
    for _ in range(5):
        facts = callers.ask_all()
        assert [found.state for found in facts] == [JobState.PENDING] * JOBS
        assert all(found.error is None and found.job is not None for found in facts)
        callers.seconds += 1
    assert len(site.connection.requests) <= 5 + 5


def test_look_ups_of_one_job_share_a_request(site: Site) -> None:
    callers = Callers(site, 10, 1)
    (job_id,) = callers.records
    with ThreadPoolExecutor(50) as pool:
        facts = list(pool.map(callers.ask, [job_id] * 50))
    assert {found.state for found in facts} == {JobState.PENDING}
    expected = ["GET jobs/state"] if site.client.offers_states() else []
    assert site.connection.requests == [*expected, f"GET job/{job_id}"]


def test_look_up_sees_the_end_of_a_job_within_two_seconds(site: Site) -> None:
    callers = Callers(site, 10, 2)
    one, other = callers.records
    callers.ask_all()
    site.cancel([one])
    callers.seconds += 2.1
    assert [found.state for found in callers.ask_all()] == [JobState.CANCELLED, JobState.PENDING]
    assert callers.ask(other).job is not None


@pytest.mark.parametrize("site", DIALECTS, indirect=True)
def test_look_ups_of_an_array_never_list_its_tasks(site: Site) -> None:
    callers = Callers(site, 10, 1, array="0-9")
    (job_id,) = callers.records
    found = callers.ask(job_id)
    assert found.job is not None
    assert found.job.array_tasks == {JobState.PENDING: 10}
    assert site.connection.requests == [f"GET job/{job_id}"]
