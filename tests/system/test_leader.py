"""Four workers on two hosts and one store: one of them leads, and after a pause it writes nothing."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from app.job_state import JobState
from app.lifecycle.job_identity import make_tag
from app.models.record import TaskRecord, utc_now
from app.models.task import Task
from app.store import TaskStore
from app.store.lease import LEASE_NAME
from tests.conftest import Cluster, until
from tests.contract.test_slurm_client import ended, in_a_minute
from tests.support.chaos.stage import LEASE, SqliteStage, Stage, make_mongodb_stage
from tests.support.real.mongod import Mongod
from tests.support.tasks import make_task

pytestmark = pytest.mark.timed


@dataclass(frozen=True)
class Lease:
    owner: str
    fence: int

    @property
    def pid(self) -> int:
        return int(self.owner.split(":")[1])


class Hosts:
    def __init__(
        self, stage: Stage, cluster: Cluster, lease: Callable[[], Lease | None], folder: Path
    ) -> None:
        self.stage = stage
        self.cluster = cluster
        self.folder = folder
        self._lease = lease

    @property
    def store(self) -> TaskStore:
        return self.stage.store

    def workers(self) -> set[int]:
        return {pid for host in self.stage.hosts for pid in host.workers()}

    def leader(self) -> Lease:
        """The one of the workers that holds the lease."""

        def held() -> Lease | None:
            lease = self._lease()
            return lease if lease is not None and lease.owner and lease.pid in self.workers() else None

        lease: Lease = until(held, 20, "a leader")
        return lease

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("host*.log")))


@pytest.fixture(params=["sqlite", "mongodb"])
def hosts(request: pytest.FixtureRequest, local_cluster: Cluster, tmp_path: Path) -> Iterator[Hosts]:
    stage: Stage
    if request.param == "sqlite":
        stage = SqliteStage(local_cluster, tmp_path)
        lease = lease_in_sqlite(tmp_path / "chaos.sqlite3")
    else:
        mongod: Mongod = request.getfixturevalue("mongod")
        stage = make_mongodb_stage(local_cluster, tmp_path, mongod.uri)
        lease = lease_in_mongodb(mongod, stage.settings["MONGODB_MONITOR_DB"])
    for host in stage.hosts:
        host.settings["SLURM_REST_READ_TIMEOUT_SECONDS"] = "60"  # an answer outlasts the pause of its reader
    with stage:
        hosts = Hosts(stage, local_cluster, lease, tmp_path)
        # Each host asks for the API version once, and then each of its two workers.
        until(lambda: hosts.log().count("slurmrestd at") >= 6, 60, "the start of every worker")
        yield hosts
        for host in stage.hosts:
            host.stop()


def lease_in_sqlite(path: Path) -> Callable[[], Lease | None]:
    def read() -> Lease | None:
        connection = sqlite3.connect(path, timeout=5)
        try:
            row = connection.execute(
                "SELECT owner, fence FROM leases WHERE name = ?", (LEASE_NAME,)
            ).fetchone()
        finally:
            connection.close()
        return Lease(*row) if row else None

    return read


def lease_in_mongodb(mongod: Mongod, database: str) -> Callable[[], Lease | None]:
    def read() -> Lease | None:
        with MongoClient[Any](mongod.uri) as client:
            found = client[database]["jobs_leases"].find_one({"_id": LEASE_NAME})
        return Lease(found["owner"], found["fence"]) if found else None

    return read


def test_one_of_four_workers_leads_and_goes_on_leading(hosts: Hosts) -> None:
    assert len(hosts.workers()) == 4
    first = hosts.leader()
    deadline = time.monotonic() + 2 * LEASE
    while time.monotonic() < deadline:
        assert hosts.leader() == first
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_another_takes_over_within_two_lease_times(hosts: Hosts, number: signal.Signals) -> None:
    first = hosts.leader()
    os.kill(first.pid, number)
    until(lambda: hosts.leader().owner != first.owner, 2 * LEASE, "another leader")
    assert hosts.leader().fence > first.fence
    if number is signal.SIGSTOP:
        os.kill(first.pid, signal.SIGCONT)


def test_a_leader_that_was_frozen_in_mid_poll_writes_nothing_when_it_wakes(hosts: Hosts) -> None:
    """The frozen leader has asked for a job that has ended, which another leader announces meanwhile."""
    network = hosts.stage.network
    network.held_path = b"/job/"  # pings are answered, so that nothing looks like an outage
    record = job_that_has_ended(hosts)
    until(lambda: network.held, 20, "the leader's poll")
    first = hosts.leader()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        network.held_path = None  # the answer now waits for the frozen leader
        until(lambda: told(hosts, record), 20, "the end of the job")
        before = told(hosts, record)
        assert hosts.leader().fence > first.fence
        words = "0 of 1 changes were applied: another process leads, or has led since"
        assert words not in hosts.log()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    until(lambda: words in hosts.log(), 20, "the vain attempt of the leader that was")
    assert told(hosts, record) == before
    assert hosts.leader().owner != first.owner


def job_that_has_ended(hosts: Hosts) -> TaskRecord:
    """In Slurm it has, in the store it is still pending."""
    task = make_task(hosts.cluster.user, notification={"methods": ["test"]})
    now = utc_now()
    client = hosts.cluster.client()
    job_id, _ = client.submit(Task.model_validate(task), "true", make_tag(task["uuid"]), in_a_minute())
    ended(client, job_id)
    client.close()
    record = TaskRecord(task=task, slurm_username=hosts.cluster.user, created_at=now, updated_at=now)
    hosts.store.add_record(record)
    assert hosts.store.accept_job(record, job_id, JobState.PENDING, now)
    return record


def told(hosts: Hosts, record: TaskRecord) -> TaskRecord | None:
    """The record once its only message is out."""
    found = hosts.store.find_by_uuids([record.uuid])[record.uuid]
    return found if [item.sent_at is not None for item in found.notifications] == [True] else None
