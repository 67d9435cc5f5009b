"""A MongoDB replica set of three members, which may be frozen, killed and forced to step down."""

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from tests.support.real.mongod import list_program
from tests.support.real.processes import Daemon, answers, free_port, until

_ELECTION_MILLISECONDS = 2000
_ALREADY_INITIALIZED = 23


class ReplicaSet:
    """A replica set that runs while it is entered, and has the address `uri`."""

    def __init__(self) -> None:
        self._folder = Path()
        self._members: dict[int, Daemon] = {}  # by port
        self.uri = ""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-proxy-replica-set-"))
        try:
            for _ in range(3):
                self._add_member(free_port())
            self._initiate()
        except BaseException:
            self.__exit__()
            raise
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._members)
        self.uri = f"mongodb://{hosts}/?replicaSet=tests"
        return self

    def __exit__(self, *error: object) -> None:
        for daemon in self._members.values():
            daemon.stop(signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add_member(self, port: int) -> None:
        data = self._folder / str(port)
        data.mkdir()
        argv = [*list_program(), "--dbpath", str(data), "--port", str(port), "--replSet", "tests"]
        argv += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
        argv += ["--oplogSize", "200", "--setParameter", "enableTestCommands=1"]  # for configureFailPoint
        self._members[port] = Daemon(argv, self._folder / f"{port}.log")
        self._start(port)

    def _start(self, port: int) -> None:
        self._members[port].start()
        self._members[port].ready(lambda: answers(port), 60)

    def _initiate(self) -> None:
        first, *_ = self._members
        members = [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(self._members)]
        settings = {"electionTimeoutMillis": _ELECTION_MILLISECONDS, "heartbeatIntervalMillis": 500}
        command = {"_id": "tests", "members": members, "settings": settings}
        with _connect(first, 30) as client:
            try:
                client.admin.command("replSetInitiate", command)
            except OperationFailure as error:
                if error.code != _ALREADY_INITIALIZED:  # the driver has repeated the command
                    raise
        self.find_primary()

    def find_primary(self) -> int:
        """Wait for a primary that most members follow, and return its port."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [port for port in self._members if _is_primary(port)]
            return len(found) == 1

        until(is_there, 60, "a primary")
        return found[0]

    def step_down(self) -> None:
        """Force the primary to give up for two seconds."""
        with _connect(self.find_primary()) as client, suppress(AutoReconnect):
            client.admin.command("replSetStepDown", 2, force=True)

    def kill_primary(self) -> None:
        """Kill the primary (SIGKILL), and start it again after another one was elected, or before."""
        port = self.find_primary()
        self._members[port].stop(signal.SIGKILL)
        time.sleep(random.uniform(0, 4))
        self._start(port)

    @contextmanager
    def lagging_secondaries(self) -> Iterator[int]:
        """Let the other members copy nothing meanwhile, and kill the primary at the end, before they do.

        What only the primary has is lost: another member is elected, and the killed one, once started again,
        takes over the state of this one. After two seconds the primary gives up by itself.
        """
        primary = self.find_primary()
        others = [port for port in self._members if port != primary]
        for port in others:
            _set_fail_point(port, "stopReplProducer", "alwaysOn")
        try:
            yield primary
        finally:
            self._members[primary].stop(signal.SIGKILL)
            for port in others:
                _set_fail_point(port, "stopReplProducer", "off")
        self.find_primary()
        self._start(primary)


def _set_fail_point(port: int, name: str, mode: str) -> None:
    with _connect(port) as client:
        client.admin.command("configureFailPoint", name, mode=mode)


def _connect(port: int, seconds: float = 2) -> "MongoClient[Any]":
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    return MongoClient(uri, serverSelectionTimeoutMS=1000, socketTimeoutMS=int(1000 * seconds))


def _is_primary(port: int) -> bool:
    try:
        with _connect(port) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False
