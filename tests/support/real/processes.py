"""Starts and ends the servers that tests need; only ever touches processes that it started."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.real import RealPartMissing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for `condition`; TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


class Daemon:
    """One server process in a session of its own, with its output in a file."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._argv = list(argv)
        self._log = log
        self._user = user
        self._env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                start_new_session=True,
                cwd="/",
            )

    def ready(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Waits until the server answers; RuntimeError with its last words if it ends instead."""

        def answered() -> bool:
            if not self.is_alive():
                raise RuntimeError(f"{self._argv[0]} ended:\n{self._log.read_text(errors='replace')[-2000:]}")
            return condition()

        until(answered, seconds, f"{self._argv[0]} (see {self._log})")

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> None:
        """Ends the whole session of the server, by force if it takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def only_one_process(purpose: str) -> Iterator[None]:
    """Wait until no other process of this suite is in here for the same purpose."""
    with (Path(tempfile.gettempdir()) / f"slurm-proxy-tests-{purpose}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(programs: Mapping[str, str]) -> None:
    """Make sure that programs are there, from Debian's packages: {program: package}."""
    with only_one_process("install"):
        _install(programs)


def _install(programs: Mapping[str, str]) -> None:
    search = "/usr/sbin:/usr/bin:/sbin:/bin"
    missing = sorted({package for program, package in programs.items() if not _is_there(program, search)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RealPartMissing(f"only root with apt-get could install {', '.join(missing)}")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:  # no package may start its daemon
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *missing)
    finally:
        if ours:
            policy.unlink()


def _is_there(program: str, search: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    return shutil.which(program, path=search) is not None


def _apt(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", "-o", "Dpkg::Options::=--force-confold", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise RealPartMissing(f"apt-get {arguments[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
