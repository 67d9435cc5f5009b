"""The gateway and the stand-in for Slurm that benchmarks use."""

from collections.abc import Iterator
from functools import partial

import pytest

from app.demo.cluster.wire import API
from benchmarks.cluster import Cluster, RawSlurm, open_cluster
from benchmarks.gateway import Fault, Gateway, find_kind
from benchmarks.http_connection import HttpConnection
from benchmarks.stand_in import FIRST_ID


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster(use_stand_in=True, jobs=3) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", f"/slurm/{API}/job/17", "job"),
        ("GET", f"/slurm/{API}/jobs/state?job_id=1&job_id=2", "jobs/state"),
        ("GET", f"/slurm/{API}/jobs?update_time=1", "jobs"),
        ("GET", f"/slurmdb/{API}/jobs?step=1", "slurmdb"),
        ("POST", f"/slurm/{API}/job/submit", "submit"),
        ("DELETE", f"/slurm/{API}/job/17", "other"),
        ("GET", f"/slurm/{API}/ping", "other"),
    ],
)
def test_a_request_has_a_kind(method: str, target: str, kind: str) -> None:
    assert find_kind(method, target) == kind


def test_the_gateway_counts_requests_and_bytes(cluster: Cluster) -> None:
    with Gateway(cluster.url) as gateway:
        slurm = RawSlurm(cluster.behind(gateway.url))
        slurm.look_up(FIRST_ID)
        before = gateway.read_traffic()
        slurm.look_up(FIRST_ID)
        slurm.read_states([FIRST_ID, FIRST_ID + 1])
        traffic = gateway.read_traffic() - before
    assert {kind: count for kind, count in traffic.requests.items() if count} == {"job": 1, "jobs/state": 1}
    assert traffic.total == 2
    assert traffic.answer_bytes > 500


def test_the_gateway_answers_as_slurmrestd_does_without_slurmctld(cluster: Cluster) -> None:
    with Gateway(cluster.url, delay=0.0) as gateway:
        slurm = RawSlurm(cluster.behind(gateway.url))
        gateway.fail(Fault.CONTROLLER_DOWN)
        down = slurm.request("GET", f"job/{FIRST_ID}")
        assert (down.status, down.json()["errors"][0]["error_number"]) == (502, 1800)
        assert slurm.request("GET", "ping").json()["pings"] == [{"pinged": "DOWN"}]
        gateway.fail(Fault.NONE)
        assert slurm.request("GET", f"job/{FIRST_ID}").status == 200


def test_the_gateway_answers_nothing_while_slurmrestd_hangs(cluster: Cluster) -> None:
    with Gateway(cluster.url) as gateway:
        gateway.fail(Fault.HANG)
        slurm = RawSlurm(cluster.behind(gateway.url), partial(HttpConnection, timeout=0.2))
        with pytest.raises(TimeoutError):
            slurm.look_up(FIRST_ID)


def test_the_stand_in_submits_and_cancels_jobs(cluster: Cluster) -> None:
    slurm = RawSlurm(cluster)
    job_id = slurm.submit("a comment")
    (job,) = slurm.request("GET", f"job/{job_id}").json()["jobs"]
    assert (job["comment"], job["job_state"]) == ("a comment", ["PENDING"])
    slurm.cancel([job_id])
    (state,) = slurm.request("GET", f"jobs/state?job_id={job_id}").json()["jobs"]
    assert state == {"job_id": str(job_id), "state": ["CANCELLED"]}
    with pytest.raises(RuntimeError, match="does not show job 17"):
        slurm.look_up(17)


def test_the_stand_in_lists_the_tasks_of_an_array_one_by_one() -> None:
    with open_cluster(use_stand_in=True, jobs=1, array_tasks=3) as cluster:
        slurm = RawSlurm(cluster)
        states = slurm.request("GET", f"jobs/state?job_id={FIRST_ID}").json()["jobs"]
        (job,) = slurm.request("GET", f"job/{FIRST_ID}").json()["jobs"]
    assert [item["job_id"] for item in states] == [f"{FIRST_ID}_{task}" for task in range(3)]
    assert job["array_task_string"] == "0-2"
