"""A server as a process of its own, on a cluster in this process, and many clients that wait for a task."""

import base64
import getpass
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import requests

from app.demo.cluster import LocalCluster
from tests.conftest import until
from tests.support.real.processes import free_port
from tests.support.service import ROOT
from tests.support.tasks import make_task

KEY = b"a key for the tests alone, of 32+ bytes"
COMMANDS = {
    "gunicorn": ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"],
    "run.py": ["run.py"],
}


class CountingCluster(LocalCluster):
    """The stand-in for Slurm, which counts its requests by method and path, and the readings of each job."""

    def __init__(self) -> None:
        super().__init__(KEY, cpus=2)
        self.requests: Counter[str] = Counter()
        self.readings: Counter[int] = Counter()
        self.url = ""

    def _route(self, method: str, url: str, *arguments: Any) -> dict[str, Any]:
        path = re.sub(r"/v[0-9.]+|[0-9]+|\?.*", "", url)
        self.requests[f"{method} {path}"] += 1
        if method == "GET" and (job := re.search(r"/job/([0-9]+)$", url)):
            self.readings[int(job[1])] += 1
        return super()._route(method, url, *arguments)


class WaitingServer:
    """One of the two servers, with one process that serves."""

    def __init__(self, folder: Path, command: list[str], cluster_url: str, **settings: str) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GUNICORN_BIND": f"127.0.0.1:{port}",
            "GUNICORN_WORKERS": "1",
            "FLASK_APP_PORT": str(port),
            "SLURM_REST_HOST": cluster_url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(KEY).decode(),
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            "MONITOR_POLLING_SECONDS": "0.5",
            "LIMIT_REQUESTS_PER_MINUTE": "0",
            "TASK_ALLOWED_SERVICE_USERS": getpass.getuser(),
            **settings,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        until(self._answers, 60, f"the start of the server (see {self.log})")

    @property
    def pid(self) -> int:
        """Return the process that serves: gunicorn's worker, or the process itself."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else pid

    def count_open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def count_connections(self) -> int:
        """Return how many connections of clients the server has, those that are being closed included."""
        port = f"{self.address[1]:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        local_ends = [line.split()[1:4] for line in lines]
        return sum(local.endswith(f":{port}") and state in ("01", "08") for local, _, state in local_ends)

    def count_threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a task that stays in the queue, and return it with its job id."""
        task = make_task(
            getpass.getuser(), str(self.folder), cwd=str(self.folder), slurm={"hold": True}, **fields
        )
        answer = requests.post(f"{self.url}/submit", json={"task": task}, timeout=60)
        assert answer.status_code == 200, answer.text
        return {**task, "slurm_job_id": answer.json()["slurm_job_id"]}

    def cancel(self, task: dict[str, Any]) -> None:
        answer = requests.post(f"{self.url}/monitor/task_uuid/{task['uuid']}/cancel", timeout=60)
        assert answer.status_code == 200, answer.text

    @contextmanager
    def waiting(self, task: dict[str, Any], count: int, seconds: int = 60) -> Iterator[list["Waiter"]]:
        """Yield so many clients that wait for the end of a task."""
        waiters = [Waiter(self.address, task["uuid"], seconds) for _ in range(count)]
        try:
            yield waiters
        finally:
            for waiter in waiters:
                waiter.close()

    def measure_seconds(self, method: str, path: str, body: Any = None) -> float:
        began = time.monotonic()
        answer = requests.request(method, self.url + path, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(f"{self.url}/ping", timeout=10).ok
        except requests.ConnectionError:
            return False


class Waiter(HTTPConnection):
    """A client that has sent a request that waits."""

    def __init__(self, address: tuple[str, int], uuid: str, seconds: int) -> None:
        super().__init__(*address, timeout=90)
        self.request("GET", f"/monitor/task_uuid/{uuid}?wait={seconds}")

    def has_answer(self) -> bool:
        """Return whether the answer has begun to arrive."""
        self.sock.setblocking(False)
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(90)

    def read_answer(self) -> tuple[HTTPResponse, dict[str, Any]]:
        response = self.getresponse()
        return response, json.loads(response.read())
