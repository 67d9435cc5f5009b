"""Faults of real parts show in `/readyz` and `/metrics` within two polling cycles, until they are mended."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from app.store.mongo import connect
from tests.conftest import Cluster, not_covered, until
from tests.support.real import RealPartMissing
from tests.support.real.disk import SmallDisk
from tests.support.real.mongod import Mongod
from tests.support.real.network import Fault, Network
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.system.test_docker import Gunicorn
from tests.unit.web.test_metrics import Scrape

pytestmark = pytest.mark.timed

POLLING_SECONDS = 1.0
TWO_CYCLES = 2 * (1.1 * POLLING_SECONDS) + 3  # and the time that a request to a part which is down takes
UNWRITABLE = 5  # seconds between two attempts to write, and until one counts as failed
HEALED = TWO_CYCLES + 16  # a circuit that is open is probed every 15 s at least


class Watch:
    """Someone who asks a server how it fares, from its own machine."""

    def __init__(self, url: str) -> None:
        self.url = url

    def readiness(self) -> tuple[int, dict[str, Any]]:
        answer = requests.get(f"{self.url}/readyz", timeout=30)
        return answer.status_code, answer.json()

    def has(self, part: str, status: str) -> bool:
        """Return whether the part has this status in both answers."""
        found = self.readiness()[1]["parts"][part]["status"]
        scrape = Scrape(requests.get(f"{self.url}/metrics", timeout=30).text)
        return found == status and scrape.value("part_status", part=part, status=status) == 1

    def is_ready(self) -> bool:
        status, body = self.readiness()
        return status == 200 and body["status"] == "ready"

    def sees(self, part: str, status: str, seconds: float = TWO_CYCLES) -> None:
        until(lambda: self.has(part, status), seconds, f"{part} to be {status}: {self.readiness()}")

    def heals(self, seconds: float = HEALED) -> None:
        until(self.is_ready, seconds, f"a service that is ready: {self.readiness()}")


@contextmanager
def watched(cluster: Cluster, folder: Path, **settings: str) -> Iterator[tuple[Service, Watch]]:
    base = {
        "TASK_ALLOWED_SERVICE_USERS": cluster.user,
        "SLURM_REST_CONNECT_TIMEOUT_SECONDS": "1",
        "SLURM_REST_READ_TIMEOUT_SECONDS": "2",
        "MONITOR_POLLING_SECONDS": str(POLLING_SECONDS),
        "MONGODB_TIMEOUT_SECONDS": "1",
    }
    with SmtpServer(folder) as smtp, Service(folder, cluster, smtp, **{**base, **settings}) as service:
        service.start()
        yield service, Watch(service.url)
        assert service.stop() == 0


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HANG])
def test_a_network_without_slurm_is_degraded(local_cluster: Cluster, tmp_path: Path, fault: Fault) -> None:
    with (
        Network(local_cluster.url) as network,
        watched(replace(local_cluster, url=network.url), tmp_path) as (_, watch),
    ):
        watch.heals()
        network.fault = fault
        network.cut()
        watch.sees("slurm", "degraded", TWO_CYCLES + 4)
        assert watch.readiness()[0] == 200
        network.fault = Fault.NONE
        network.cut()
        watch.heals()


def test_a_wrong_key_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    """The start cannot find it, because Slurm does not answer at that time."""
    key = b"the key of another cluster, 32 bytes"
    with Network(cluster.url) as network:
        network.fault = Fault.HANG
        with watched(replace(cluster, url=network.url, key=key), tmp_path) as (_, watch):
            network.fault = Fault.NONE
            network.cut()
            watch.sees("key", "not_ready", HEALED)
            assert watch.readiness()[0] == 503
            assert "the key must be the cluster's" in watch.readiness()[1]["parts"]["key"]["reason"]


@pytest.fixture(scope="module")
def on_real_slurm(distribution_cluster: Cluster, tmp_path_factory: Any) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("real")
    with watched(distribution_cluster, folder, SLURM_REST_READ_TIMEOUT_SECONDS="30") as (_, watch):
        watch.heals()
        yield watch


@pytest.mark.real
@pytest.mark.parametrize(
    ("daemon", "part", "seconds"), [("slurmdbd", "accounting", 2.0), ("slurmctld", "slurm", 10.0)]
)
def test_a_daemon_that_is_down_is_degraded(
    on_real_slurm: Watch, distribution_cluster: Cluster, daemon: str, part: str, seconds: float
) -> None:
    """slurmrestd takes nine seconds to report that slurmctld is down."""
    slurm = distribution_cluster.real
    assert slurm is not None
    slurm.stop_daemon(daemon)
    try:
        on_real_slurm.sees(part, "degraded", TWO_CYCLES + seconds)
        assert on_real_slurm.readiness()[0] == 200
    finally:
        slurm.start_daemon(daemon)
    on_real_slurm.heals(HEALED + 30)


@pytest.mark.real
def test_a_mongodb_that_is_killed_or_locked_is_not_ready(
    local_cluster: Cluster, replica_set: Mongod, tmp_path: Path
) -> None:
    with watched(local_cluster, tmp_path, MONGODB_URI=replica_set.uri, MONGODB_MONITOR_DB="health") as (
        _,
        watch,
    ):
        watch.heals()
        with connect(replica_set.uri, 10) as client:
            client.admin.command("fsync", lock=True)
            try:
                watch.sees("store", "not_ready", TWO_CYCLES + UNWRITABLE)
                assert watch.readiness()[0] == 503
            finally:
                client.admin.command("fsyncUnlock")
        watch.heals()
        replica_set.kill()
        try:
            watch.sees("store", "not_ready", TWO_CYCLES + UNWRITABLE)
            assert watch.readiness()[0] == 503
            assert watch.readiness()[1]["parts"]["leader"]["status"] == "unknown"
        finally:
            replica_set.start()
        watch.heals(HEALED + 30)
        with connect(replica_set.uri, 10) as client:
            client.drop_database("health")


def test_a_full_disk_is_not_ready(
    request: pytest.FixtureRequest, local_cluster: Cluster, tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "a full file system", str(missing))
    try:
        with watched(local_cluster, tmp_path, SQLITE_PATH=str(disk.path / "store.sqlite3")) as (_, watch):
            watch.heals()
            with disk.full():
                watch.sees("store", "not_ready", TWO_CYCLES + UNWRITABLE)
                assert watch.readiness()[0] == 503
                assert "is full" in watch.readiness()[1]["parts"]["store"]["reason"]
            watch.heals()
    finally:
        disk.__exit__()


def test_one_scrape_of_any_worker_shows_all_workers_of_the_host(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path)
    watch = Watch(f"http://127.0.0.1:{server.port}")
    try:
        until(lambda: processes(watch) == 2, 30, "two workers in one scrape")
        assert {processes(watch) for _ in range(10)} == {2}
        leader = server.leaders()[0].split(":")[1]
        os.kill(int(leader), signal.SIGKILL)
        until(lambda: processes(watch) == 3, 30, "the new worker, beside the last report of the old one")
    finally:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def processes(watch: Watch) -> int:
    try:
        scrape = Scrape(requests.get(f"{watch.url}/metrics", timeout=10).text)
    except requests.ConnectionError:
        return 0
    return len({sample.labels["process"] for sample in scrape.samples if "process" in sample.labels})
