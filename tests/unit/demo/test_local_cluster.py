"""The local cluster; test_slurm_client.py has the tests that it shares with a real Slurm."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from app.demo.cluster import LocalCluster
from app.demo.cluster.wire import API
from app.slurm.tokens import TokenMint
from tests.conftest import until

KEY = b"another key for the tests alone, 32+"


class Local:
    """A local cluster with one CPU, and raw requests to it."""

    def __init__(self, user: str, folder: Path) -> None:
        self.cluster = LocalCluster(KEY, cpus=1, min_job_age=1.0)
        self.url = self.cluster.start()
        self.user = user
        self._folder = folder

    def ask(self, method: str, path: str, key: bytes = KEY, **options: Any) -> requests.Response:
        headers = TokenMint(key, 300).make_headers(self.user)
        return requests.request(method, self.url + path, headers=headers, timeout=10, **options)

    def submit(self, script: str = "#!/bin/sh\ntrue\n", **job: Any) -> requests.Response:
        wanted = {"current_working_directory": str(self._folder), "environment": ["PATH=/bin"], **job}
        return self.ask("POST", f"/slurm/{API}/job/submit", json={"script": script, "job": wanted})

    def job(self, job_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/slurm/{API}/job/{job_id}").json()["jobs"][0]
        return found

    def state(self, job_id: int) -> list[str]:
        states: list[str] = self.job(job_id)["job_state"]
        return states


@pytest.fixture
def local(local_user: str) -> Iterator[Local]:
    with TemporaryDirectory() as folder:
        shutil.chown(folder, local_user)
        local = Local(local_user, Path(folder))
        yield local
        local.cluster.stop()


def test_it_listens_on_loopback_alone(local: Local) -> None:
    assert urlsplit(local.url).hostname == "127.0.0.1"


def test_a_job_waits_until_there_is_a_cpu_for_it(local: Local) -> None:
    first = local.submit("#!/bin/sh\nsleep 600\n").json()["job_id"]
    until(lambda: local.state(first) == ["RUNNING"], 10, "the start of the first job")
    second = local.submit().json()["job_id"]
    until(lambda: local.job(second)["state_reason"] == "Resources", 10, "the wait of the second")
    assert local.state(second) == ["PENDING"]
    local.ask("DELETE", f"/slurm/{API}/job/{first}")
    until(lambda: local.state(second) == ["COMPLETED"], 10, "the end of the second")


def test_a_signal_reaches_a_running_job_and_no_other(local: Local) -> None:
    running = local.submit("#!/bin/sh\nsleep 600\n").json()["job_id"]
    waiting = local.submit().json()["job_id"]
    until(lambda: local.state(running) == ["RUNNING"], 10, "the start")
    refused = local.ask("DELETE", f"/slurm/{API}/job/{waiting}", params={"signal": "KILL"})
    assert refused.json()["status"][0]["error"]["code"] == 2020
    local.ask("DELETE", f"/slurm/{API}/job/{running}", params={"signal": "KILL"})
    until(lambda: local.state(running) == ["FAILED"], 10, "the end")
    assert local.job(running)["exit_code"]["signal"]["id"]["number"] == signal.SIGKILL


def test_old_jobs_leave_the_controller_and_stay_in_accounting(local: Local) -> None:
    job_id = local.submit().json()["job_id"]
    until(lambda: local.ask("GET", f"/slurm/{API}/job/{job_id}").status_code == 404, 10, "its leaving")
    (job,) = local.ask("GET", f"/slurmdb/{API}/job/{job_id}").json()["jobs"]
    assert job["state"]["current"] == ["COMPLETED"]


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"environment": []}, 2127),
        ({"current_working_directory": ""}, 2063),
        ({"partition": "nowhere"}, 2000),
        ({"memory_per_node": {"set": True, "number": 10**9}}, 2014),
        ({"cpus_per_task": 2}, 2014),
        ({"array": "1-3"}, 2016),
        ({"dependency": "afterok:1"}, 2016),
    ],
)
def test_the_local_cluster_refuses_unsupported_jobs_as_slurm_would(
    local: Local, job: dict[str, Any], code: int
) -> None:
    answer = local.submit(**job)
    assert (answer.status_code, answer.json()["errors"][0]["error_number"]) == (422, code)
    assert local.ask("GET", f"/slurm/{API}/jobs").json()["jobs"] == []


def test_an_empty_script_is_refused(local: Local) -> None:
    assert local.submit("").json()["errors"][0]["error_number"] == 9000


def test_a_body_that_is_no_json_is_refused(local: Local) -> None:
    assert local.ask("POST", f"/slurm/{API}/job/submit", data="{").status_code == 400


def test_an_unknown_field_is_a_warning_that_names_it(local: Local) -> None:
    (warning,) = local.submit(colour="green").json()["warnings"]
    assert "colour" in warning["description"]


def test_the_local_cluster_accepts_only_tokens_of_its_own_key(local: Local) -> None:
    assert requests.get(f"{local.url}/slurm/{API}/jobs", timeout=10).status_code == 401
    assert (
        local.ask("GET", f"/slurm/{API}/jobs", key=b"the key of somebody else, of 32+ bytes").status_code
        == 511
    )
    assert local.ask("GET", f"/slurm/{API}/jobs").status_code == 200


@pytest.mark.parametrize("path", ["/", "/slurm/v0.0.38/jobs", f"/slurm/{API}/licenses", "/openapi"])
def test_the_local_cluster_answers_404_for_other_paths(local: Local, path: str) -> None:
    assert local.ask("GET", path).status_code == 404


def test_stopping_it_ends_its_jobs(local: Local) -> None:
    job_id = local.submit("#!/bin/sh\nsleep 600\n").json()["job_id"]
    until(lambda: local.state(job_id) == ["RUNNING"], 10, "the start")
    (job,) = local.cluster.queue.all()
    local.cluster.stop()
    local.cluster.stop()
    assert job.state.is_final
