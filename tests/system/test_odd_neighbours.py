"""Jobs of other users with bytes that are not text do not hide the ends of our own jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REAL_CLUSTERS, Cluster, until
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task

pytestmark = [pytest.mark.real, pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)]

# Latin-1, a half surrogate pair and control characters, as $'…' of bash has them.
ODD = r"d\xe9d\xe9\xed\xa0\x80\x01\x1f\t"
ENDS_AT_ONCE = 15  # more than are read one by one


@pytest.fixture
def service(cluster: Cluster, tmp_path: Path) -> Iterator[Service]:
    with (
        SmtpServer(tmp_path) as smtp,
        Service(tmp_path, cluster, smtp, SLURM_REST_USERNAME="slurm") as service,
    ):
        service.start()
        yield service
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()


def submitted(service: Service, command: str, **slurm: Any) -> dict[str, Any]:
    task = make_task(cwd="/tmp", cmd=command, params=[], slurm={"mem": 20, **slurm})
    response = service.post("/submit", {"task": task})
    assert response.status_code == 200, response.text
    return task


def wait_for_end(service: Service, task: dict[str, Any], state: str = "COMPLETED") -> None:
    until(lambda: service.record(task)["slurm_job_state"] == state, 90, f"{state} of {task['uuid']}")


def add_neighbour(cluster: Cluster, service: Service) -> None:
    """Submit a job of another user with odd texts, which slurmctld has for as long as the test takes."""
    command = f"sbatch -J $'{ODD}' --comment=$'{ODD}' -o /dev/null -D /tmp --mem=10 -t 2 --wrap 'sleep 60'"
    if cluster.real is not None:
        cluster.real.run("bash", "-c", command, user=cluster.other)
    else:  # from within a job of ours, since no command of that cluster is to be had here
        wait_for_end(service, submitted(service, command))


def test_an_end_is_noticed_while_a_neighbours_name_is_no_text(cluster: Cluster, service: Service) -> None:
    add_neighbour(cluster, service)
    client = cluster.client()
    names = [job["name"] for job in client.send_raw_list(0).body["jobs"]]
    client.close()
    assert any(name.startswith("d\ufffdd\ufffd") for name in names), names
    tasks = [submitted(service, "sleep 2") for _ in range(ENDS_AT_ONCE)]
    for task in tasks:
        wait_for_end(service, task)


def test_a_neighbours_job_with_odd_texts_can_be_registered_and_its_end_is_noticed(
    cluster: Cluster, service: Service
) -> None:
    add_neighbour(cluster, service)
    client = cluster.client()
    job = next(
        job for job in reversed(client.send_raw_list(0).body["jobs"]) if job["name"].startswith("d\ufffd")
    )
    task = {"uuid": f"odd-{job['job_id']}", "username": job["user_name"]}
    response = service.post("/monitor", {"monitor": {"task": task, "slurm_job_id": job["job_id"]}})
    assert response.status_code == 200, response.text
    client.send_raw("DELETE", f"job/{job['job_id']}", user=job["user_name"])
    client.close()
    wait_for_end(service, task, "CANCELLED")
