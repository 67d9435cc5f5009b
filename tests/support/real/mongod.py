"""A real mongod: one whose address is given, one on PATH, or the vendor's download."""

import hashlib
import os
import platform
import shlex
import shutil
import signal
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from tests.support.real import RealPartMissing
from tests.support.real.processes import Daemon, answers, free_port, only_one_process, until

_VERSION = "8.0.15"
_CACHE = Path.home() / ".cache" / "slurm-proxy-tests"
_DOWNLOADS = {
    ("debian", "12"): "debian12",
    ("ubuntu", "22.04"): "ubuntu2204",
    ("ubuntu", "24.04"): "ubuntu2404",
}


class Mongod:
    """Enter it to have `uri`. Only a server that it started is ever stopped."""

    def __init__(self, *, own_replica_set: bool = False) -> None:
        """`own_replica_set`: one that may be killed; without a mongod to start it is RealPartMissing."""
        self.uri = "" if own_replica_set else os.environ.get("TEST_MONGODB_URI", "")
        self._own_replica_set = own_replica_set
        self._folder = Path()
        self._daemon: Daemon | None = None
        self._port = 0

    def __enter__(self) -> Self:
        if not self.uri:
            self._folder = Path(tempfile.mkdtemp(prefix="slurm-proxy-mongod-"))
            self._port = free_port()
            argv = [*list_program(), "--dbpath", str(self._folder), "--port", str(self._port)]
            argv += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
            argv += ["--replSet", "tests"] if self._own_replica_set else []
            self._daemon = Daemon(argv, self._folder / "log")
            self.uri = f"mongodb://127.0.0.1:{self._port}/?directConnection=true"
            self.start()
            if self._own_replica_set:
                self._initiate()
        return self

    def _initiate(self) -> None:
        """Makes the replica set, and waits for its primary."""
        members = [{"_id": 0, "host": f"127.0.0.1:{self._port}"}]
        with MongoClient[Any](self.uri) as client:
            client.admin.command("replSetInitiate", {"_id": "tests", "members": members})
            until(lambda: client.admin.command("hello")["isWritablePrimary"], 30, "a primary")

    def step_down(self, seconds: int = 2) -> None:
        """The primary gives up being one for so long."""
        with MongoClient[Any](self.uri) as client, suppress(AutoReconnect):
            client.admin.command("replSetStepDown", seconds, force=True)

    def start(self) -> None:
        """Does nothing if it runs."""
        assert self._daemon is not None
        if not self._daemon.is_alive():
            self._daemon.start()
        self._daemon.ready(lambda: answers(self._port), 60)

    def kill(self) -> None:
        """kill -9, as a crash does."""
        assert self._daemon is not None
        self._daemon.stop(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze mongod meanwhile: it keeps its connections, takes new ones, and answers nothing."""
        assert self._daemon is not None
        self._daemon.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send(signal.SIGCONT)

    def __exit__(self, *error: object) -> None:
        if self._daemon is not None:
            self._daemon.stop()
            shutil.rmtree(self._folder, ignore_errors=True)


def list_program() -> list[str]:
    """Return the command of mongod: TEST_MONGOD, or the program on PATH, or a downloaded one."""
    return shlex.split(os.environ.get("TEST_MONGOD", "")) or [shutil.which("mongod") or str(_downloaded())]


def _downloaded() -> Path:
    release = platform.freedesktop_os_release()
    kind = _DOWNLOADS.get((release.get("ID", ""), release.get("VERSION_ID", "")))
    if kind is None or platform.machine() != "x86_64":
        raise RealPartMissing(f"no mongod on PATH, and no download for {release.get('PRETTY_NAME')}")
    program = _CACHE / f"mongod-{_VERSION}-{kind}"
    with only_one_process("mongod"):
        if not program.exists():
            _CACHE.mkdir(parents=True, exist_ok=True)
            _fetch(f"mongodb-linux-x86_64-{kind}-{_VERSION}", program)
    return program


def _fetch(name: str, program: Path) -> None:
    """Downloads the archive, holds it against the vendor's checksum, and keeps its mongod."""
    url = f"https://fastdl.mongodb.org/linux/{name}.tgz"
    with tempfile.NamedTemporaryFile() as archive:
        try:
            with urllib.request.urlopen(url + ".sha256", timeout=5) as answer:
                expected = answer.read().split()[0].decode()
            with urllib.request.urlopen(url, timeout=30) as answer:
                shutil.copyfileobj(answer, archive)
        except (OSError, urllib.error.URLError) as error:
            raise RealPartMissing(f"no mongod on PATH, and {url} cannot be fetched: {error}") from error
        archive.flush()
        found = hashlib.sha256(Path(archive.name).read_bytes()).hexdigest()
        if found != expected:
            raise RealPartMissing(f"{url} is not what its checksum says")
        with tarfile.open(archive.name) as contents:
            member = contents.extractfile(f"{name}/bin/mongod")
            assert member is not None
            part = program.with_suffix(".part")
            with part.open("wb") as file:
                shutil.copyfileobj(member, file)
    part.chmod(0o755)
    part.rename(program)
