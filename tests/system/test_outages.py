"""Outages of each part: answers and their time, and recovery without a restart."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.errors import SlurmUnavailable, StoreUnavailable
from app.models.task import Task
from app.slurm.client import SlurmClient
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, until
from tests.contract.test_slurm_client import in_a_minute
from tests.support.real.mongod import Mongod
from tests.support.real.network import Fault, Network
from tests.support.real.processes import free_port
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.stores import make_record
from tests.support.tasks import make_task, new_uuid

pytestmark = pytest.mark.timed

READ_TIMEOUT = 2.0
LONGEST = READ_TIMEOUT + 2 * 1.0  # to be answered, for a free connection, and to connect
ANSWERED_AT_ONCE = 3.0


class Stage:
    """A service that speaks to Slurm through a network that can fail."""

    def __init__(self, service: Service, cluster: Cluster, network: Network) -> None:
        self.service = service
        self.cluster = cluster
        self.network = network

    def task(self, **fields: Any) -> dict[str, Any]:
        base = {"cwd": "/tmp", "slurm": {"mem": 50, "output": "out.txt"}}
        return make_task(self.cluster.user, "/tmp/slurm-proxy-outages", **{**base, **fields})

    def submit(self, task: dict[str, Any] | None = None, **headers: str) -> tuple[int, Any, float]:
        """Status, body, seconds."""
        began = time.monotonic()
        response = self.service.post("/submit", {"task": task or self.task()}, **headers)
        if response.status_code >= 502:
            assert int(response.headers["Retry-After"]) > 0
        return response.status_code, response.json(), time.monotonic() - began

    def heals(self) -> None:
        until(lambda: self.submit()[0] == 200, 60, "the first submission after the outage")


def staged(cluster: Cluster, network: Network, folder: Path, **settings: str) -> Iterator[Stage]:
    base = {
        "TASK_ALLOWED_SERVICE_USERS": cluster.user,
        "SLURM_REST_CONNECT_TIMEOUT_SECONDS": "1",
        "SLURM_REST_READ_TIMEOUT_SECONDS": str(READ_TIMEOUT),
        "MONITOR_POLLING_SECONDS": "2",
    }
    with SmtpServer(folder) as smtp, Service(folder, cluster, smtp, **{**base, **settings}) as service:
        service.start()
        stage = Stage(service, cluster, network)
        stage.heals()
        yield stage
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def stage(local_cluster: Cluster, tmp_path_factory: Any) -> Iterator[Stage]:
    with Network(local_cluster.url) as network:
        yield from staged(
            replace(local_cluster, url=network.url), network, tmp_path_factory.mktemp("outages")
        )


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HANG])
def test_callers_wait_no_longer_than_the_settings_say_and_then_not_at_all(stage: Stage, fault: Fault) -> None:
    stage.network.fault = fault
    try:
        for _ in range(5):
            status, body, seconds = stage.submit()
            assert (status, body["code"]) in {(503, "slurm_unavailable"), (504, "submission_unknown")}
            assert seconds < LONGEST + 1
        for _ in range(5):
            status, body, seconds = stage.submit()
            assert (status, body["code"]) == (503, "slurm_unavailable")
            assert seconds < ANSWERED_AT_ONCE
    finally:
        stage.network.fault = Fault.NONE
    stage.heals()


class _Broken(BaseHTTPRequestHandler):
    """What stands in front of slurmrestd, or it itself, is at fault."""

    status = 500

    def do_GET(self) -> None:
        body = b"<html>something is wrong</html>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("status", [500, 502, 503, 511])
def test_a_slurmrestd_that_answers_only_errors(stage: Stage, status: int) -> None:
    handler = type("Broken", (_Broken,), {"status": status})
    target = stage.network.target
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        stage.network.target = ("127.0.0.1", broken.server_port)
        stage.network.cut()
        try:
            codes = set()
            for _ in range(8):
                answered, body, seconds = stage.submit()
                codes.add((answered, body["code"]))
                assert seconds < ANSWERED_AT_ONCE
        finally:
            stage.network.target = target
            stage.network.cut()
            broken.shutdown()
    if status == 511:  # slurmrestd's own word for a token that it does not take
        assert codes == {(502, "slurm_error")}
    else:  # no proof that nothing was taken; after three the circuit is open
        assert codes == {(504, "submission_unknown"), (503, "slurm_unavailable")}
    stage.heals()


def test_a_get_is_answered_during_an_outage(stage: Stage) -> None:
    task = stage.task(cmd="sleep 60; echo")
    assert stage.submit(task)[0] == 200
    stage.network.fault = Fault.HANG
    try:
        time.sleep(2.5)  # longer than an answer of Slurm is taken for fresh
        began = time.monotonic()
        answer = stage.service.get(f"/monitor/task_uuid/{task['uuid']}")
        assert time.monotonic() - began < LONGEST + 1
        assert answer["slurm"]["stale"] is True
        assert answer["monitor"]["task"] == task
    finally:
        stage.network.fault = Fault.NONE
    stage.heals()


def test_a_lost_answer_is_found_again_by_the_same_request(stage: Stage) -> None:
    """The job exists, but its answer was lost: a retry with the key returns the job."""
    task = stage.task()
    stage.network.fault = Fault.SWALLOW
    status, body, _ = stage.submit(task)
    stage.network.fault = Fault.NONE
    assert (status, body["code"]) == (504, "submission_unknown")
    key = {"Idempotency-Key": f'"{task["uuid"]}"'}
    until(lambda: stage.submit(task, **key)[0] == 200, 90, "the adoption of the job")
    answer = stage.submit(task, **key)[1]
    record = stage.service.record(task)
    assert record["slurm_job_id"] == answer["slurm_job_id"]
    client = stage.cluster.client()
    jobs = [job for job in client.send_raw_list(0).body["jobs"] if task["uuid"] in job["comment"]]
    client.close()
    assert len(jobs) <= 1, "it may have left slurmctld by now, but was never there twice"


def test_a_key_cannot_be_anything(stage: Stage) -> None:
    status, body, _ = stage.submit(None, **{"Idempotency-Key": "x" * 256})
    assert (status, body["code"]) == (400, "invalid_request")
    assert body["details"] == ["Idempotency-Key: must be 1 to 255 printable ASCII characters"]


def test_a_closed_port_is_answered_at_once(tmp_path: Path) -> None:
    app = create_app(
        {
            "SLURM_REST_HOST": f"http://127.0.0.1:{free_port()}",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0" * 6,
            "SQLITE_PATH": tmp_path / "store.sqlite3",
        }
    )
    services = app.extensions["slurm_proxy"]
    services.store.prepare()
    for _ in range(5):
        response = app.test_client().post("/submit", json={"task": make_task()})
        assert (response.status_code, response.get_json()["code"]) == (503, "slurm_unavailable")
    assert "has not been answering" in response.get_json()["error"]
    with pytest.raises(SlurmUnavailable, match="has not been answering"):
        services.poller_slurm.require_up()
    services.stop()


# --- real daemons ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_stage(distribution_cluster: Cluster, tmp_path_factory: Any) -> Iterator[Stage]:
    with Network(distribution_cluster.url) as network:
        cluster = replace(distribution_cluster, url=network.url)
        folder = tmp_path_factory.mktemp("real")
        yield from staged(cluster, network, folder, SLURM_REST_READ_TIMEOUT_SECONDS="30")


@pytest.mark.real
def test_slurmctld_down(real_stage: Stage) -> None:
    slurm = real_stage.cluster.real
    assert slurm is not None
    task = real_stage.task(cmd="sleep 5; echo")
    assert real_stage.submit(task)[0] == 200
    slurm.stop_daemon("slurmctld")
    try:
        until(lambda: real_stage.submit()[2] < 1, 90, "an answer at once")
        status, body, seconds = real_stage.submit()
        assert (status, body["code"]) == (503, "slurm_unavailable")
        assert seconds < ANSWERED_AT_ONCE
        assert not real_stage.service.record(task)["notifications"]
    finally:
        slurm.start_daemon("slurmctld")
    real_stage.heals()
    until(lambda: real_stage.service.record(task)["slurm_job_state"] == "COMPLETED", 60, "the end of the job")


@pytest.mark.real
def test_slurmctld_hangs(real_stage: Stage) -> None:
    """It takes connections, and never answers: slurmrestd gives up after its own time."""
    slurm = real_stage.cluster.real
    assert slurm is not None
    slurm.signal_daemon("slurmctld", signal.SIGSTOP)
    try:
        until(lambda: real_stage.submit()[2] < 1, 200, "an answer at once")
        status, body, seconds = real_stage.submit()
        assert (status, body["code"]) == (503, "slurm_unavailable")
        assert seconds < ANSWERED_AT_ONCE
    finally:
        slurm.signal_daemon("slurmctld", signal.SIGCONT)
    real_stage.heals()


@pytest.mark.real
def test_submissions_work_while_slurmdbd_is_down(real_stage: Stage) -> None:
    slurm = real_stage.cluster.real
    assert slurm is not None
    slurm.stop_daemon("slurmdbd")
    try:
        for _ in range(5):
            status, _, seconds = real_stage.submit()
            assert status == 200
            assert seconds < ANSWERED_AT_ONCE
    finally:
        slurm.start_daemon("slurmdbd")


@pytest.fixture
def quick_stage(distribution_cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A server that settles an unknown outcome within seconds."""
    settings = {"SLURM_CLOCK_SKEW_SECONDS": "2", "MONITOR_POLLING_SECONDS": "0.5"}
    with Network(distribution_cluster.url) as network:
        yield from staged(replace(distribution_cluster, url=network.url), network, tmp_path, **settings)


@pytest.mark.real
def test_a_lost_answer_is_never_freed_by_a_slurmdbd_that_has_yet_to_learn_of_its_job(
    quick_stage: Stage, distribution_cluster: Cluster
) -> None:
    """slurmctld has forgotten the job, and slurmdbd answers before it has received the end."""
    slurm, client = distribution_cluster.real, distribution_cluster.client()
    assert slurm is not None
    name = new_uuid()
    task = quick_stage.task(slurm={"mem": 50, "job_name": name})
    slurm.stop_daemon("slurmdbd")
    fillers = [held(client, distribution_cluster) for _ in range(100)]
    quick_stage.network.fault = Fault.SWALLOW
    status, body, _ = quick_stage.submit(task)
    quick_stage.network.fault = Fault.NONE
    assert (status, body["code"]) == (504, "submission_unknown")
    quick_stage.service.kill()  # it would find the job in slurmctld
    for job_id in fillers:
        client.send_raw("DELETE", f"job/{job_id}", user=distribution_cluster.user)
    client.close()
    with slurm.configured("MinJobAge=2"):
        until(lambda: name not in slurm.run("squeue", "-h", "-t", "all", "-o", "%j"), 150, "a purged job")
    quick_stage.service.start()
    assert not settled(quick_stage.service, task)
    slurm.start_daemon("slurmdbd")
    record = until(lambda: settled(quick_stage.service, task), 90, "a settled submission")
    assert record.get("submission_error") is None
    job_id = record["slurm_job_id"]
    status, body, _ = quick_stage.submit(task, **{"Idempotency-Key": task["uuid"]})
    assert (status, body["slurm_job_id"]) == (200, job_id)
    ran = slurm.run("sacct", "-a", "-X", "-n", "-P", "--name", name, "-o", "jobid,state").split()
    assert ran == [f"{job_id}|COMPLETED"]


def held(client: SlurmClient, cluster: Cluster) -> int:
    task = Task.model_validate(make_task(cluster.user, cwd="/tmp", slurm={"mem": 10, "hold": True}))
    return client.submit(task, "true", "a filler", in_a_minute())[0]


def settled(service: Service, task: dict[str, Any]) -> Any:
    record = service.record(task)
    return record if record["slurm_job_id"] or record.get("submission_error") else None


# --- stores ------------------------------------------------------------------------------------


def test_mongodb_away(local_cluster: Cluster, tmp_path: Path, mongod: Mongod) -> None:
    with ExitStack() as stack:
        network = stack.enter_context(Network(mongod.uri))
        smtp = stack.enter_context(SmtpServer(tmp_path))
        settings = {
            "MONGODB_URI": network.url.replace("http", "mongodb", 1) + "/?directConnection=true",
            "MONGODB_MONITOR_DB": new_uuid(),
            "MONGODB_TIMEOUT_SECONDS": "1",
            "TASK_ALLOWED_SERVICE_USERS": local_cluster.user,
        }
        service = stack.enter_context(Service(tmp_path, local_cluster, smtp, **settings))
        service.start()
        stage = Stage(service, local_cluster, network)
        task = stage.task()
        assert stage.submit(task)[0] == 200
        network.fault = Fault.RESET
        network.cut()
        for _ in range(3):
            status, body, seconds = stage.submit()
            assert (status, body["code"]) == (503, "store_unavailable")
            assert seconds < ANSWERED_AT_ONCE
        network.fault = Fault.NONE
        stage.heals()
        until(lambda: service.record(task)["slurm_job_state"] == "COMPLETED", 60, "the end of the job")
        assert service.stop() == 0


@pytest.mark.real
def test_mongodb_killed_and_its_primary_moved(
    local_cluster: Cluster, tmp_path: Path, replica_set: Mongod
) -> None:
    with ExitStack() as stack:
        smtp = stack.enter_context(SmtpServer(tmp_path))
        network = stack.enter_context(Network(local_cluster.url))
        settings = {
            "MONGODB_URI": replica_set.uri,
            "MONGODB_MONITOR_DB": new_uuid(),
            "MONGODB_TIMEOUT_SECONDS": "1",
            "TASK_ALLOWED_SERVICE_USERS": local_cluster.user,
        }
        service = stack.enter_context(Service(tmp_path, local_cluster, smtp, **settings))
        service.start()
        stage = Stage(service, local_cluster, network)
        for outage in (replica_set.kill, partial(replica_set.step_down, 5)):
            task = stage.task(cmd="sleep 3; echo")
            assert stage.submit(task)[0] == 200
            outage()
            status, body, seconds = stage.submit()
            assert (status, body["code"]) == (503, "store_unavailable")
            assert seconds < ANSWERED_AT_ONCE
            replica_set.start()
            stage.heals()
            until(partial(is_completed, service, task), 60, "the end of the job")
        assert service.stop() == 0


@pytest.mark.real
def test_one_request_at_a_time_waits_for_a_mongodb_that_hangs(
    local_cluster: Cluster, tmp_path: Path, replica_set: Mongod
) -> None:
    timeout = 3.0
    settings = {
        "MONGODB_URI": replica_set.uri,
        "MONGODB_MONITOR_DB": new_uuid(),
        "MONGODB_TIMEOUT_SECONDS": str(timeout),
        "TASK_ALLOWED_SERVICE_USERS": local_cluster.user,
    }
    with (
        Network(local_cluster.url) as network,
        SmtpServer(tmp_path) as smtp,
        Service(tmp_path, local_cluster, smtp, **settings) as service,
    ):
        service.start()
        stage = Stage(service, local_cluster, network)
        task = stage.task(cmd="sleep 3; echo")
        assert stage.submit(task)[0] == 200
        with replica_set.frozen():
            assert stage.submit()[0] == 503  # after the time-out
            with ThreadPoolExecutor(20) as pool:
                answers = [pool.submit(stage.submit) for _ in range(20)]
            waited = 0
            for status, body, seconds in (answer.result() for answer in answers):
                assert (status, body["code"]) == (503, "store_unavailable")
                waited += seconds > timeout - 0.5
            assert waited <= 1
            assert service.answer("/readyz").status_code == 503
        began = time.monotonic()
        stage.heals()
        assert time.monotonic() - began < ANSWERED_AT_ONCE
        until(partial(is_completed, service, task), 60, "the end of the job")
        assert service.stop() == 0


def is_completed(service: Service, task: dict[str, Any]) -> bool:
    return bool(service.record(task)["slurm_job_state"] == "COMPLETED")


def test_a_full_disk_refuses_new_records_and_keeps_the_old(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    kept = make_record()
    store.add_record(kept)
    with store.reading() as connection:  # the one that the next call takes
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")  # as a disk without a free block does
    big = make_record(task=make_task(ballast="x" * 100_000))
    with pytest.raises(StoreUnavailable, match="full"):
        store.add_record(big)
    assert list(store.find_by_uuids([kept.uuid, big.uuid])) == [kept.uuid]
    store.add_record(big)
    assert len(store.find_by_uuids([kept.uuid, big.uuid])) == 2
    store.close()
