"""The restore of an older backup, on every cluster and in both stores: no task runs a second time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.lifecycle.job_identity import make_tag
from app.store.mongo import connect
from tests.conftest import Cluster, until
from tests.support.real.mongod import Mongod
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_email, make_task, new_uuid


class Deployment:
    """A service whose store is lost, and put back from a backup."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self._folder = folder
        self._store = folder / "store.sqlite3"

    def back_up(self) -> None:
        self.service.flask("records", "backup", str(self._folder / "backup.sqlite3"))

    def restore(self) -> None:
        """Do what docs/how-to/operate.md says."""
        for path in self._folder.glob("store.sqlite3*"):
            path.unlink()
        (self._folder / "backup.sqlite3").rename(self._store)


class MongoDeployment(Deployment):
    """The same with MongoDB."""

    def __init__(self, service: Service, folder: Path, uri: str) -> None:
        super().__init__(service, folder)
        self._uri = uri
        self._file = str(folder / "backup.jsonl.gz")
        self._name = f"test_{new_uuid()}"
        service.environment |= {"MONGODB_URI": uri, "MONGODB_MONITOR_DB": self._name}

    def back_up(self) -> None:
        self.service.flask("records", "backup", self._file)

    def restore(self) -> None:
        self.drop()
        self.service.flask("records", "import", self._file)

    def drop(self) -> None:
        with connect(self._uri, 30) as client:
            client.drop_database(self._name)


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def deployment(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, smtp: SmtpServer
) -> Iterator[Deployment]:
    with Service(tmp_path, cluster, smtp) as service:
        if request.param == "sqlite":
            yield Deployment(service, tmp_path)
            return
        mongod: Mongod = request.getfixturevalue("mongod")
        found = MongoDeployment(service, tmp_path, mongod.uri)
        yield found
        service.kill()
        found.drop()


def jobs_of(cluster: Cluster, task: dict[str, Any]) -> list[int]:
    """Return the ids of all jobs that carry the tag of a task."""
    client = cluster.client()
    found = client.find_tagged_jobs(datetime.now(UTC) - timedelta(hours=1), lambda *_: None)
    client.close()
    return [job.job_id for job in found.jobs if job.comment == make_tag(task["uuid"])]


def test_a_task_that_was_submitted_after_the_backup_never_runs_again(
    deployment: Deployment, cluster: Cluster, smtp: SmtpServer, tmp_path: Path
) -> None:
    service = deployment.service
    service.start()
    folder = f"/home/{cluster.user}/slurm-proxy-tests/{new_uuid()}"

    def submit(**slurm: Any) -> tuple[dict[str, Any], int]:
        words = {"cwd": "/tmp", "cmd": "true", "params": [], "notification": make_email()}
        task = make_task(cluster.user, folder, **words, slurm={"mem": 20, **slurm})
        answer = service.post("/submit", {"task": task})
        assert answer.status_code == 200, answer.text
        return task, answer.json()["slurm_job_id"]

    earlier, _ = submit()
    until(lambda: service.record(earlier)["ended"], 90, "the end of the first job")
    deployment.back_up()
    ended, ended_id = submit()
    waiting, waiting_id = submit(hold=True)
    until(lambda: service.record(ended)["ended"], 90, "the end of the second job")
    until(lambda: len(smtp.mails) == 2, 60, "their messages")
    service.kill()
    deployment.restore()

    adopted = service.flask("records", "adopt", "--since", "1h").splitlines()
    for task, job_id in ((ended, ended_id), (waiting, waiting_id)):
        line = f"adopted  {task['uuid']}  job {job_id} of {cluster.user}, "
        assert any(found.startswith(line) for found in adopted), adopted
    service.start()
    for task, job_id in ((ended, ended_id), (waiting, waiting_id)):
        again = service.post("/submit", {"task": task})
        assert (again.status_code, again.json()["code"]) == (400, "duplicate_uuid")
        assert again.json()["slurm_job_id"] == job_id
        assert jobs_of(cluster, task) == [job_id]
        assert service.record(task)["task"]["adopted_from_slurm"] is True
    assert service.record(earlier)["task"] == earlier
    assert service.record(ended)["succeeded"] is True
    cluster.client().control.cancel(waiting_id, cluster.user)
    until(lambda: service.record(waiting)["slurm_job_state"] == "CANCELLED", 60, "the end of the third job")
    assert len(smtp.mails) == 2
    assert service.flask("records", "adopt", "--since", "1h", "--dry-run").count(waiting["uuid"]) == 0
