"""A cluster whose site has submit rules of its own: job_submit.lua refuses jobs, and remarks on others."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import RefusalWithoutReason, SlurmAmbiguous, SlurmRefused
from app.models.task import Task
from app.slurm.client import SlurmClient
from tests.conftest import Cluster, not_covered
from tests.contract.test_slurm_client import in_a_minute
from tests.support.real import RealPartMissing
from tests.support.real.slurm_cluster import SlurmCluster
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task, new_uuid

pytestmark = pytest.mark.real

RULES = """
function slurm_job_submit(job, partitions, uid)
  if job.name == "refused" then
    slurm.log_user("jobs of this kind need an account")
    return slurm.ERROR
  end
  if job.name == "invalid" then
    return slurm.ESLURM_INVALID_TIME_LIMIT
  end
  if job.name == "remarked" then
    slurm.log_user("your time limit is long")
  end
  if job.name == "commented" then
    job.comment = "set by the site"
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""


@pytest.fixture(scope="module")
def strict_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    slurm = SlurmCluster(submit_rules=RULES)
    try:
        slurm.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "a Slurm with submit rules", str(missing))
    key = slurm.key_path.read_bytes()
    yield Cluster("strict", slurm.url, key, "alice", "bob", real=slurm)
    slurm.__exit__()


@pytest.fixture(scope="module")
def service(strict_cluster: Cluster, tmp_path_factory: Any) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("strict")
    with SmtpServer(folder) as smtp, Service(folder, strict_cluster, smtp) as service:
        service.start()
        yield service
        assert service.stop() == 0


def named(name: str, uuid: str | None = None) -> dict[str, Any]:
    return make_task(uuid=uuid or new_uuid(), cwd="/tmp", slurm={"job_name": name, "mem": 50})


def test_a_refusal_by_the_sites_rules_is_a_400_and_frees_the_uuid(service: Service) -> None:
    task = named("refused")
    for _ in range(4):  # the circuit breaker does not take it for an outage
        response = service.post("/submit", {"task": task})
        assert (response.status_code, response.json()["code"]) == (400, "slurm_refused")
        assert "submit rules" in response.json()["error"]
    response = service.post("/submit", {"task": named("accepted", task["uuid"])})
    assert response.status_code == 200, response.text
    assert service.record(task)["slurm_job_id"] == response.json()["slurm_job_id"]


def test_a_refusal_with_a_reason_has_slurms_own_text(service: Service) -> None:
    response = service.post("/submit", {"task": named("invalid")})
    assert (response.status_code, response.json()["code"]) == (400, "slurm_refused")
    assert "time limit" in response.json()["error"]


def test_a_remark_on_an_accepted_job_is_a_warning(service: Service) -> None:
    response = service.post("/submit", {"task": named("remarked")})
    assert response.json()["warnings"] == ["Slurm: your time limit is long"]


def test_a_job_whose_comment_the_site_replaced_is_found_without_its_tag(strict_cluster: Cluster) -> None:
    client = strict_cluster.client()
    began = client.read_controller_time()
    job_id = submit(client, "commented")
    found = client.search([strict_cluster.user], began, ["slurm-proxy:none"])
    assert job_id in [job.job_id for job in found.untagged]
    assert found.controller == []
    client.close()


def submit(client: SlurmClient, name: str) -> int:
    task = Task.model_validate(named(name))
    return client.submit(task, "true", f"slurm-proxy:{task.uuid}", in_a_minute())[0]


def test_no_outage_looks_like_a_refusal_by_the_sites_rules(strict_cluster: Cluster, tmp_path: Path) -> None:
    """A slurmctld that hangs, one that dies over a submission, and one that is down: none of them is -1."""
    slurm = strict_cluster.real
    assert slurm is not None
    client = strict_cluster.client()
    with pytest.raises(RefusalWithoutReason):
        submit(client, "refused")
    slurm.signal_daemon("slurmctld", signal.SIGSTOP)
    try:
        with pytest.raises(SlurmAmbiguous) as caught:
            submit(client, "accepted")
    finally:
        slurm.signal_daemon("slurmctld", signal.SIGCONT)
    assert type(caught.value) is SlurmAmbiguous
    with pytest.raises(SlurmRefused):
        submit(client, "invalid")
    client.close()
