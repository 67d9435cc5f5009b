"""A host of the service: one gunicorn with two workers, as on a machine of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.support.real.processes import answers, free_port, until

ROOT = Path(__file__).parents[3]
APPLICATION = "app:create_app()"


class Host:
    """A host that can be killed and started again."""

    def __init__(self, settings: dict[str, str], log: Path, application: str = APPLICATION) -> None:
        self.port = free_port()
        self.settings = settings
        self._log = log
        self._application = application
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the host, again and again while the store is unavailable, as supervisord does."""
        while not answers(self.port):
            if self._master is None or self._master.poll() is not None:
                with self._log.open("ab") as log:
                    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py"]
                    bound = {"PATH": os.environ["PATH"], "GUNICORN_BIND": f"127.0.0.1:{self.port}"}
                    self._master = subprocess.Popen(
                        [*argv, self._application],
                        cwd=ROOT,
                        env={**bound, **self.settings},
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
            time.sleep(0.2)

    def workers(self) -> list[int]:
        assert self._master is not None
        path = Path(f"/proc/{self._master.pid}/task/{self._master.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def kill(self) -> None:
        """Kill all of its processes, as when a machine loses its power."""
        if self._master is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._master.pid, signal.SIGKILL)
        self._master.wait(10)
        until(lambda: not answers(self.port), 10, "the end of all workers")

    def stop(self) -> None:
        assert self._master is not None
        self._master.terminate()
        self._master.wait(60)


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, which may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def find_worker(hosts: list[Host], port: int) -> int | None:
    """Return the worker whose end of a connection on loopback has this port; None if it has ended."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}")}
    for pid in [pid for host in hosts for pid in host.workers()]:
        with suppress(OSError):  # it has ended, or closes a file at this moment
            if any(str(file.readlink()) in sockets for file in Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    return None
