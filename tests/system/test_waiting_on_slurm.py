"""Requests that wait for the begin and the end of a job, on every cluster."""

import pwd
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cluster
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task, new_uuid


@pytest.fixture
def service(cluster: Cluster, smtp: SmtpServer, tmp_path: Path) -> Iterator[Service]:
    settings = {"TASK_ALLOWED_SERVICE_USERS": cluster.user} if cluster.name == "local" else {}
    with Service(tmp_path, cluster, smtp, **settings) as service:
        service.start()
        yield service
        assert service.stop() == 0


@pytest.fixture
def home(cluster: Cluster) -> Iterator[Path]:
    """A folder of the job's user."""
    folder = Path(pwd.getpwnam(cluster.user).pw_dir) / f"slurm-proxy-tests-{new_uuid()[:8]}"
    folder.mkdir()
    shutil.chown(folder, cluster.user)
    yield folder
    shutil.rmtree(folder)


def test_requests_wait_for_the_begin_and_the_end_of_a_job(
    service: Service, cluster: Cluster, home: Path
) -> None:
    command = {"cmd": "sleep 4; exit 3", "params": [], "slurm": {"mem": 50}}
    task = make_task(cluster.user, str(home), cwd=str(home), **command)
    job_id = service.post("/submit", {"task": task}).json()["slurm_job_id"]
    by_uuid, by_id = f"/monitor/task_uuid/{task['uuid']}", f"/monitor/slurm_job_id/{job_id}"
    began = service.get(f"{by_uuid}?wait=60&until=begin")["monitor"]
    assert began["slurm_job_state"] in ("RUNNING", "COMPLETING")
    assert not began["ended"]
    at = time.monotonic()
    ended = service.get(f"{by_id}?wait=60")
    assert time.monotonic() - at < 50  # the poller sees the end within a second, slurmdbd up to ten later
    assert (ended["monitor"]["slurm_job_state"], ended["slurm"]["exit_code"]) == ("FAILED", 3)
    assert (ended["monitor"]["ended"], ended["monitor"]["succeeded"]) == (True, False)
    assert service.get(f"{by_uuid}?wait=60&until=begin")["monitor"] == ended["monitor"]
