"""Real parts for the tests that need them, and a summary of the missing ones."""

import os
import pwd
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.constants import Settings
from app.demo.cluster import LocalCluster
from app.setting_names import OLDER_NAMES
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from tests.support.databases import SharedDatabase
from tests.support.mongomock_server import uncovered
from tests.support.real import RealPartMissing
from tests.support.real.mongod import Mongod
from tests.support.real.slurm_cluster import SlurmCluster, make_user
from tests.support.real.smtp import SmtpServer
from tests.support.scheduling import make_scheduler, place_of

_MONGODB = "a real MongoDB"
_NOT_COVERED = pytest.StashKey[dict[str, str]]()
USES_MONGOMOCK = pytest.StashKey[bool]()


@dataclass(eq=False)
class Cluster:
    """A cluster to test on, with users alice and bob (or the one that runs the tests)."""

    name: str
    url: str
    key: bytes
    user: str
    other: str
    minute: float = 60.0  # seconds in a minute of a time limit
    min_job_age: float = 30.0
    partition: str = "debug"  # the one that lets a job run for days
    real: SlurmCluster | None = field(default=None, repr=False)

    def client(self, **options: Any) -> SlurmClient:
        connection = Connection(
            self.url, TokenMint(self.key, 300), **{"connect_timeout": 3, "read_timeout": 30, **options}
        )
        return SlurmClient(Session(connection, "slurm"))


def until(condition: Callable[[], Any], seconds: float = 60, what: str = "it") -> Any:
    """What `condition` returns once it is true; AssertionError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)
    return value


def not_covered(request: pytest.FixtureRequest, part: str, why: str) -> NoReturn:
    """Skip the test, and name the part that it lacked in the summary."""
    request.config.stash[_NOT_COVERED][part] = why
    pytest.skip(f"{part}: {why}")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_NOT_COVERED] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with its servers stopped
    for name in Settings.model_fields:  # the developer's own settings are not the tests'
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    for name in OLDER_NAMES:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return make_scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_covered"] = session.config.stash[_NOT_COVERED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a process of pytest-xdist did not cover to the summary."""
    node.config.stash[_NOT_COVERED].update(getattr(node, "workeroutput", {}).get("not_covered", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say at the end what the tests did not cover."""
    if USES_MONGOMOCK in config.stash:
        for line in uncovered():
            terminalreporter.write_line(line)
    for part, why in config.stash[_NOT_COVERED].items():
        terminalreporter.write_line(f"NOT COVERED on {part}: {why}", yellow=True)
    if not config.stash[_NOT_COVERED]:
        terminalreporter.write_line("Every real part that the selected tests ask for was there.")


@pytest.fixture(scope="session")
def mongod_if_any(request: pytest.FixtureRequest) -> Iterator[Mongod | None]:
    """A real MongoDB, or None: then the embedded store replaces it, and the summary reports this."""
    server = Mongod()
    try:
        server.__enter__()
    except RealPartMissing as missing:
        request.config.stash[_NOT_COVERED][_MONGODB] = str(missing)
        yield None
        return
    yield server
    server.__exit__()


@pytest.fixture(scope="session")
def mongod(request: pytest.FixtureRequest, mongod_if_any: Mongod | None) -> Mongod:
    """A real MongoDB, for tests that mean nothing without one."""
    if mongod_if_any is None:
        pytest.skip(request.config.stash[_NOT_COVERED][_MONGODB])
    return mongod_if_any


@pytest.fixture(scope="session")
def _mongo_database(mongod: Mongod) -> Iterator[SharedDatabase]:
    database = SharedDatabase(mongod.uri)
    yield database
    database.close()


@pytest.fixture
def mongo_database(_mongo_database: SharedDatabase) -> SharedDatabase:
    """An empty database on a real MongoDB, with its indexes."""
    _mongo_database.empty()
    return _mongo_database


@pytest.fixture(scope="session")
def replica_set(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """A MongoDB of our own, which may be killed and forced to step down."""
    server = Mongod(own_replica_set=True)
    try:
        server.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "a MongoDB replica set", str(missing))
    yield server
    server.__exit__()


@pytest.fixture(scope="session")
def users() -> tuple[str, str]:
    """alice and bob, as every cluster here has them; who runs the tests, twice, where they cannot be made."""
    if os.geteuid() == 0:
        with suppress(OSError, RuntimeError):
            make_user("alice")
            make_user("bob")
            return "alice", "bob"
    me = pwd.getpwuid(os.geteuid()).pw_name
    return me, me


@pytest.fixture(scope="session")
def local_cluster(users: tuple[str, str]) -> Iterator[Cluster]:
    """The stand-in of `run.py --demo`, with short minutes."""
    key = b"a key for the tests alone, of 32+ bytes"
    local = LocalCluster(key, cpus=4, minute=1.0, min_job_age=3.0)
    yield Cluster("local", local.start(), key, *users, minute=1.0, min_job_age=3.0)
    local.stop()


@pytest.fixture(scope="session")
def local_user(users: tuple[str, str]) -> str:
    """One whom this machine knows, and as whom these tests can run jobs."""
    return users[0]


@pytest.fixture(scope="session")
def distribution_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The Slurm of this machine's distribution, installed and started here."""
    slurm = SlurmCluster()
    try:
        slurm.__enter__()
    except RealPartMissing as missing:
        not_covered(request, "the distribution's Slurm", str(missing))
    yield Cluster(
        f"Slurm {slurm.version}", slurm.url, slurm.key_path.read_bytes(), "alice", "bob", real=slurm
    )
    slurm.__exit__()


@pytest.fixture(scope="session")
def given_cluster(request: pytest.FixtureRequest) -> Cluster:
    """Return the running cluster that TEST_SLURM_URL and TEST_SLURM_KEY_PATH name."""
    return _running_cluster(request, "given Slurm", "TEST_SLURM")


@pytest.fixture(scope="session")
def next_cluster(request: pytest.FixtureRequest) -> Cluster:
    """Return the running cluster of a newer release: TEST_SLURM_NEXT_URL and TEST_SLURM_NEXT_KEY_PATH."""
    return _running_cluster(request, "next Slurm", "TEST_SLURM_NEXT")


def _running_cluster(request: pytest.FixtureRequest, name: str, prefix: str) -> Cluster:
    """Return a cluster that runs already, with users alice and bob and a partition debug."""
    url, key_path = os.environ.get(f"{prefix}_URL"), os.environ.get(f"{prefix}_KEY_PATH")
    if not url or not key_path:
        not_covered(request, name, f"{prefix}_URL and {prefix}_KEY_PATH are not set")
    return Cluster(name, url, Path(key_path).read_bytes(), "alice", "bob")


REAL_CLUSTERS = [
    pytest.param("distribution", marks=pytest.mark.real),
    pytest.param("given", marks=pytest.mark.real),
    pytest.param("next", marks=pytest.mark.real),
]


@pytest.fixture(scope="session", params=["local", *REAL_CLUSTERS])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Every cluster that the client must get on with."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[SmtpServer]:
    with SmtpServer(tmp_path) as server:
        yield server
