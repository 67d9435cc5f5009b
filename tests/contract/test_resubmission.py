"""Resubmitted tasks, dependencies on tasks, and parameters, on every cluster."""

import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.slurm.client import SlurmClient
from tests.conftest import REAL_CLUSTERS, Cluster, until
from tests.support.tasks import make_task, new_uuid
from tests.support.web import post, prepared_app

ODD = ['it\'s "odd"\n$(touch here) `id`\\', "", "-n ${HOME} *", "ü\u2028\t;#"]
PRINT = {
    "cmd": r"printf '%s\0'",
    "default_params": ["--one=${one}", "${all}"],
    "parameters": {
        "properties": {"one": {"type": "string"}, "all": {"type": "array"}},
        "required": ["one", "all"],
    },
    "slurm": {"mem": 50, "time_minutes": 5, "output": "printed"},
}


class Site:
    """The application on one cluster, and its tasks, whose polls a test makes itself."""

    def __init__(self, app: Any, client: SlurmClient, cluster: Cluster, folder: Path) -> None:
        self.services = app.extensions["slurm_proxy"]
        self.web, self.client, self.cluster, self.folder = app.test_client(), client, cluster, folder

    def ask(self, path: str, body: Any) -> Any:
        answer = post(self.web, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json

    def submit(self, command: str | None = "true", **fields: Any) -> Any:
        slurm = {"mem": 50, "time_minutes": 5, **fields.pop("slurm", {})} if command else {}
        words: dict[str, Any] = {"cmd": command, "params": None if command is None else []}
        base = {"cwd": str(self.folder), **words, "slurm": slurm, **fields}
        return self.ask("/submit", {"task": make_task(self.cluster.user, str(self.folder), **base)})

    def refuse(self, dependency: str) -> str:
        task = make_task(self.cluster.user, str(self.folder), slurm={"dependency": dependency})
        answer = post(self.web, "/submit", {"task": task})
        assert answer.status_code == 400, answer.text
        return str(answer.json["error"])

    def find(self, uuid: str) -> Any:
        return self.web.get(f"/monitor/task_uuid/{uuid}").json

    def wait_for_end(self, uuid: str, seconds: float = 90) -> Any:
        def ended() -> Any:
            self.services.monitor.run_cycle(self.services.store.now())
            found = self.find(uuid)
            return found if found["monitor"]["ended"] else None

        return until(ended, seconds, f"the end of {uuid}")

    def dependency_of(self, job_id: int) -> str:
        """Return the dependency of a job as Slurm shows it, without what has become of its parts."""
        job = self.client.send_raw("GET", f"job/{job_id}").body["jobs"][0]
        return str(job["dependency"] or "").replace("(unfulfilled)", "")


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    folder = Path(pwd.getpwnam(cluster.user).pw_dir) / f"slurm-proxy-tests-{new_uuid()[:8]}"
    folder.mkdir()
    shutil.chown(folder, cluster.user)
    client = cluster.client()
    settings: Any = {"TASK_METADATA": {"print": PRINT}, "TASK_ALLOWED_SERVICE_USERS": cluster.user}
    with prepared_app(tmp_path / "store.sqlite3", client, **settings) as app:
        yield Site(app, client, cluster, folder)
    client.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_resubmitted_task_runs_with_the_changed_memory(site: Site) -> None:
    options = {"hold": True, "output": "first"}
    first = site.submit('echo "$SLURM_MEM_PER_NODE"', slurm=options)
    patch = {"task": {"slurm": {"mem": 80, "hold": None, "output": "second"}}}
    again = site.ask(f"/monitor/slurm_job_id/{first['slurm_job_id']}/resubmit", patch)
    assert again["resubmitted_from"] == first["uuid"]
    shown = site.wait_for_end(again["uuid"])
    assert (shown["slurm"]["job_state"], shown["slurm"]["memory_mb"]) == ("COMPLETED", 80)
    assert (site.folder / "output/second").read_text() == ("\n" if site.cluster.name == "local" else "80\n")
    assert not (site.folder / "output/first").exists()
    assert site.find(first["uuid"])["monitor"]["resubmitted_as"] == [again["uuid"]]
    post(site.web, f"/monitor/task_uuid/{first['uuid']}/cancel", {})


def test_the_values_of_parameters_reach_the_command_byte_for_byte(site: Site) -> None:
    parameters = {"one": ODD[0], "all": ODD}
    answer = site.submit(None, name="print", parameters=parameters)
    assert site.wait_for_end(answer["uuid"])["monitor"]["succeeded"] is True
    printed = (site.folder / "output/printed").read_bytes().decode().split("\0")
    assert printed == [f"--one={ODD[0]}", *ODD, ""]
    assert not list(site.folder.rglob("here"))


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_slurm_gets_the_jobs_of_tasks_and_no_job_that_it_has_forgotten(site: Site) -> None:
    first = site.submit("exit 3", slurm={"hold": True})
    second = site.submit(slurm={"hold": True})
    ids = first["slurm_job_id"], second["slurm_job_id"]
    both = site.submit(slurm={"dependency": f"afterok:{second['uuid']}:{first['uuid']},singleton"})
    shown = site.dependency_of(both["slurm_job_id"])
    assert shown == f"afterok:{ids[1]},afterok:{ids[0]},singleton"
    either = site.submit(slurm={"dependency": f"after:{first['uuid']}+5?afterany:{ids[1]}"})
    assert site.dependency_of(either["slurm_job_id"]) == f"after:{ids[0]}+5?afterany:{ids[1]}"
    for answer in (first, second):
        site.ask(f"/monitor/task_uuid/{answer['uuid']}/release", {})
    assert site.wait_for_end(first["uuid"])["monitor"]["slurm_job_state"] == "FAILED"
    assert site.wait_for_end(second["uuid"])["monitor"]["slurm_job_state"] == "COMPLETED"
    until(lambda: site.client.read_jobs(ids) == {ids[0]: None, ids[1]: None}, 150, "the jobs are forgotten")
    fault = f"can never be fulfilled: task {first['uuid']} ended as FAILED"
    assert fault in site.refuse(f"afterok:{first['uuid']}:{second['uuid']}")
    done = site.submit(slurm={"dependency": f"afterok:{second['uuid']},afternotok:{first['uuid']}"})
    assert site.dependency_of(done["slurm_job_id"]) == ""
    assert site.wait_for_end(done["uuid"])["monitor"]["succeeded"] is True
    for answer in (both, either):
        post(site.web, f"/monitor/task_uuid/{answer['uuid']}/cancel", {})
