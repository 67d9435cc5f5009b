"""The service as its operator runs it, on hosts whose clocks are wrong: libfaketime sets them.

libfaketime 0.9.10 makes `time.sleep` fail, so that threads of the MongoDB driver end with tracebacks there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.conftest import Cluster, not_covered, until
from tests.support.real import RealPartMissing
from tests.support.real.mongod import Mongod
from tests.support.real.processes import install
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task, new_uuid

LIBRARY = "libfaketime.so.1"
LEASE = 3.0  # seconds

Start = Callable[..., Service]


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Path:
    """libfaketime, which shifts the clock of one process and leaves its steady clocks alone."""
    try:
        install({"faketime": "faketime"})
    except RealPartMissing as missing:
        not_covered(request, "hosts with wrong clocks", str(missing))
    found = sorted(Path("/usr/lib").rglob(LIBRARY))
    if not found:
        not_covered(request, "hosts with wrong clocks", f"no {LIBRARY} below /usr/lib")
    return found[0]


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def start(
    request: pytest.FixtureRequest, local_cluster: Cluster, smtp: SmtpServer, tmp_path: Path, library: Path
) -> Iterator[Start]:
    """Start a service whose clock is wrong by so many seconds; all share one store."""
    store = {"SQLITE_PATH": str(tmp_path / "store.sqlite3")}
    if request.param == "mongodb":
        mongod: Mongod = request.getfixturevalue("mongod")
        store |= {"MONGODB_URI": mongod.uri, "MONGODB_MONITOR_DB": f"test_{new_uuid()}"}
    started: list[Service] = []

    def start(shift: int) -> Service:
        folder = tmp_path / f"host{len(started)}"
        folder.mkdir()
        clock = {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{shift:+}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        settings = {
            **store,
            "MONITOR_LEASE_SECONDS": str(LEASE),
            "TASK_ALLOWED_SERVICE_USERS": local_cluster.user,
        }
        service = Service(folder, local_cluster, smtp, **settings, **(clock if shift else {}))
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.stop()
    if request.param == "mongodb":
        with MongoClient[Any](mongod.uri) as client:
            client.drop_database(store["MONGODB_MONITOR_DB"])


@pytest.mark.parametrize("shift", [-3600, -100, 100, 3600])
def test_a_host_with_a_wrong_clock_neither_polls_nor_submits_and_one_with_a_right_clock_does(
    start: Start, local_cluster: Cluster, shift: int
) -> None:
    wrong = start(shift)
    until(lambda: "neither polls nor submits" in wrong.log.read_text(), 30, "what the wrong host says")
    answer = wrong.post("/submit", {"task": a_task(local_cluster)})
    assert (answer.status_code, answer.json()["code"]) == (503, "clocks_disagree"), answer.text
    side = "ahead of" if shift > 0 else "behind"
    assert f"s {side} Slurm's" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) > 0

    right = start(0)
    task = a_task(local_cluster)
    assert right.post("/submit", {"task": task}).status_code == 200
    until(lambda: right.record(task)["slurm_job_state"] == "COMPLETED", 20, "an end that is noticed")
    assert wrong.log.read_text().count("neither polls nor submits") == 1
    assert "Traceback" not in right.log.read_text()


def a_task(cluster: Cluster) -> dict[str, Any]:
    slurm = {"mem": 50, "output": "out.txt"}
    return make_task(cluster.user, "/tmp/slurm-proxy-clocks", cwd="/tmp", slurm=slurm)
