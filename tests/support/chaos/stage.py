"""Two hosts with one store, the network between them and Slurm, and the receiver of their messages."""

import base64
import random
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster
from tests.support.chaos.gate import SubmissionGate
from tests.support.chaos.hosts import APPLICATION, Host, find_worker, send_signal
from tests.support.chaos.receiver import MessageReceiver
from tests.support.real.replica_set import ReplicaSet

LEASE = 3.0  # seconds
_ANSWER_SECONDS = 5.0  # until Slurm answers one of the submissions that come meanwhile
Control = Callable[[Literal["stop", "start"], str], object]  # of a daemon of the cluster


class Stage:
    """Two hosts, which are started when the stage is entered, and killed when it is left."""

    def __init__(
        self,
        cluster: Cluster,
        store: TaskStore,
        settings: dict[str, str],
        folder: Path,
        application: str = APPLICATION,
    ) -> None:
        """Describe the hosts.

        Args:
            cluster: The cluster.
            store: The store of the hosts, for what the tests read.
            settings: The settings that lead the hosts to this store.
            folder: The folder of their logs.
            application: The WSGI application of the hosts.
        """
        self.cluster = cluster
        self.store = store
        self.network = SubmissionGate(cluster.url)
        self.receiver = MessageReceiver()
        self.settings = {
            "SLURM_REST_HOST": self.network.url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(cluster.key).decode(),
            "SLURM_REST_CONNECT_TIMEOUT_SECONDS": "1",
            "SLURM_REST_READ_TIMEOUT_SECONDS": "3",
            "SLURM_CLOCK_SKEW_SECONDS": "5",
            "MONITOR_POLLING_SECONDS": "0.5",
            "MONITOR_LEASE_SECONDS": str(LEASE),
            "NOTIFICATIONS_CLAIM_SECONDS": "10",
            "NOTIFICATIONS_CEILING": "0",  # one receiver gets all messages
            **self.receiver.settings,
            **settings,
        }
        logs = [folder / f"host{number}.log" for number in (1, 2)]
        self.hosts = [Host(dict(self.settings), log, application) for log in logs]

    def __enter__(self) -> Self:
        self.network.__enter__()
        self.receiver.__enter__()
        self.start_hosts()
        return self

    def __exit__(self, *error: object) -> None:
        for host in self.hosts:
            host.kill()
        self.receiver.__exit__()
        self.network.__exit__()
        self.store.close()

    def start_hosts(self) -> None:
        """Start the hosts that do not run."""
        for host in self.hosts:
            host.start()

    def kill_worker_before_accept(self) -> None:
        """Kill a worker after Slurm has answered its submission, and before it writes that to the store."""
        with self.network.stopped_answers():
            port = self.network.wait_for_answer(_ANSWER_SECONDS)
            if port is not None and (pid := find_worker(self.hosts, port)) is not None:
                send_signal(pid, signal.SIGKILL)

    def kill_worker_at_accept(self) -> None:
        """Kill a worker some milliseconds after it got Slurm's answer, before or after it wrote that."""
        with self.network.stopped_answers():
            port = self.network.wait_for_answer(_ANSWER_SECONDS)
            pid = find_worker(self.hosts, port) if port is not None else None
        time.sleep(random.uniform(0, 0.01))
        if pid is not None:
            send_signal(pid, signal.SIGKILL)


class SqliteStage(Stage):
    """A stage whose hosts are one machine, with one file."""

    def __init__(self, cluster: Cluster, folder: Path, application: str = APPLICATION) -> None:
        self._path = folder / "chaos.sqlite3"
        store = SqliteStore(self._path)
        super().__init__(cluster, store, {"SQLITE_PATH": str(self._path)}, folder, application)

    @contextmanager
    def accept_loss(self) -> Iterator[None]:
        """Take from the store what is written meanwhile, as when the machine loses its power at the end.

        Submissions that Slurm has answered before get their answer meanwhile. No further submission reaches
        Slurm and no message is sent, because the store syncs the file before either.
        """
        copy = self._path.with_suffix(".copy")
        with self.network.stopped_requests(), self.receiver.closed():
            with sqlite3.connect(self._path, timeout=30) as source, sqlite3.connect(copy) as target:
                source.backup(target)
            source.close()
            target.close()
            self.network.pass_answers()
            yield
            for host in self.hosts:
                host.kill()
            self.network.cut()
        self.store.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        copy.replace(self._path)
        self.start_hosts()

    def lose_accept(self) -> None:
        """Let the machine lose its power while Slurm's answers to submissions are being stored."""
        with self.network.stopped_answers():
            self.network.wait_for_answer(_ANSWER_SECONDS)
            with self.accept_loss():
                time.sleep(random.uniform(0.05, 0.5))


class ReplicaSetStage(Stage):
    """A stage with a replica set of its own."""

    def __init__(
        self, cluster: Cluster, folder: Path, replica_set: ReplicaSet, application: str = APPLICATION
    ) -> None:
        self.replica_set = replica_set
        store, settings = _make_mongodb(replica_set.uri)
        super().__init__(cluster, store, settings, folder, application)

    @contextmanager
    def accept_loss(self) -> Iterator[None]:
        """Pass Slurm's stopped answers on, and lose at the end what only the primary has by then."""
        with self.replica_set.lagging_secondaries():
            self.network.pass_answers()
            yield

    def lose_accept(self) -> None:
        """Kill the primary while Slurm's answers to submissions are being stored."""
        with self.network.stopped_answers():
            self.network.wait_for_answer(_ANSWER_SECONDS)
            with self.accept_loss():
                time.sleep(random.uniform(0.05, 0.5))

    def step_down_at_accept(self) -> None:
        """Force the primary to step down while Slurm's answers to submissions are being stored."""
        with self.network.stopped_answers():
            self.network.wait_for_answer(_ANSWER_SECONDS)
        time.sleep(random.uniform(0, 0.02))
        self.replica_set.step_down()


def make_mongodb_stage(cluster: Cluster, folder: Path, uri: str) -> Stage:
    """Return a stage with a MongoDB that belongs to others, too."""
    store, settings = _make_mongodb(uri)
    return Stage(cluster, store, settings, folder)


def _make_mongodb(uri: str) -> tuple[MongoStore, dict[str, str]]:
    """Return a store in a new database, and the settings that lead to it."""
    database = uuid.uuid4().hex
    settings = {"MONGODB_URI": uri, "MONGODB_MONITOR_DB": database, "MONGODB_TIMEOUT_SECONDS": "2"}
    return MongoStore(connect(uri, 30), database, "jobs"), settings
