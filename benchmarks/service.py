"""slurm-proxy as the benchmarks run it: gunicorn, whose time is told part by part."""

import functools
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, Response

import app as slurm_proxy
from app.senders import SENDERS
from app.store.mongo import connect
from app.web.auth import allow_unauthenticated
from benchmarks.cluster import Cluster, MakeConnection
from benchmarks.command import Store
from benchmarks.http_connection import HttpAnswer, HttpConnection
from benchmarks.processes import read_cpu_seconds, read_memory
from benchmarks.stand_in import USER
from tests.support.real.processes import answers, free_port, until
from tests.support.tasks import make_task, new_uuid

ROOT = Path(__file__).parent.parent
WORKER_HEADER = "benchmark-worker"  # of each answer: the process that gave it


def held_task(**fields: Any) -> dict[str, Any]:
    """Return a task whose job waits until it is cancelled."""
    slurm = {"mem": 10, "hold": True}
    return make_task(USER, "/tmp/slurm-proxy-benchmark", cwd="/tmp", slurm=slurm, **fields)


@dataclass(frozen=True)
class Service:
    """A service that runs, its first process, the headers that it wants from callers, and its cluster."""

    url: str
    cluster: Cluster
    pid: int
    headers: dict[str, str] = field(default_factory=dict)

    def connect(self, make_connection: MakeConnection = HttpConnection) -> "Client":
        """Return a caller with a connection of its own."""
        return Client(self, make_connection(self.url))

    def read_parts(self) -> dict[str, dict[str, float]]:
        """Return count, median and sum in milliseconds of each part of a worker since the last call."""
        found: dict[str, dict[str, float]] = self.connect().get("/parts").json()
        return found

    def wait_for_cycle(self) -> dict[str, dict[str, float]]:
        """Return what the polling worker has done since it was last asked, once it has polled Slurm."""
        parts: dict[str, dict[str, float]] = {}

        def has_polled() -> bool:
            parts.update(self.read_parts())
            return "cycle" in parts and "poll" in parts

        until(has_polled, 120, "a polling cycle")
        return parts

    def list_workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def read_cpu_seconds(self) -> float:
        """Return the CPU time that the workers have used."""
        return sum(read_cpu_seconds(pid) for pid in self.list_workers())

    def read_memory(self) -> int:
        """Return the bytes of memory that the largest worker uses now."""
        return max(read_memory(pid) for pid in self.list_workers())


class Client:
    """A caller of the service, with one kept connection. For one thread."""

    def __init__(self, service: Service, connection: HttpConnection) -> None:
        """Name the service; the connection is opened for the first request."""
        self._service = service
        self._connection = connection

    def submit(self, **fields: Any) -> int:
        """Submit a held job, and return its id.

        Raises:
            RuntimeError: The task is refused.
        """
        answer = self.post("/submit", {"task": held_task(**fields)})
        if answer.status != 200:
            raise RuntimeError(f"the service refused a task: {answer.content[:500]!r}")
        job_id = int(answer.json()["slurm_job_id"])
        self._service.cluster.job_ids.append(job_id)
        return job_id

    def look_up(self, job_id: int) -> None:
        """Get a task by the id of its job.

        Raises:
            RuntimeError: There is no such task.
        """
        answer = self.get(f"/monitor/slurm_job_id/{job_id}")
        if answer.status != 200:
            raise RuntimeError(f"the service does not show job {job_id}: {answer.content[:500]!r}")

    def get(self, target: str) -> HttpAnswer:
        """Return the answer to a GET."""
        return self._connection.request("GET", target, self._service.headers)

    def post(self, target: str, body: object) -> HttpAnswer:
        """Return the answer to a POST."""
        return self._connection.request("POST", target, self._service.headers, body)


@contextmanager
def run_service(
    cluster: Cluster,
    store: Store,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    with_key: bool = False,
    workers: int = 1,
) -> Iterator[Service]:
    """Yield a service; its log is `folder/log`, and a database on MongoDB is dropped at the end.

    Args:
        cluster: The cluster.
        store: The store; an SQLite file is `folder/store.sqlite3`.
        folder: A folder of this service alone, which is created.
        settings: Further settings.
        with_key: Whether callers need a key, and their requests are counted.
        workers: How many processes there are.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "GUNICORN_BIND": f"127.0.0.1:{port}",
        "GUNICORN_WORKERS": str(workers),
        "SLURM_REST_HOST": cluster.url,
        "SLURM_JWT_HS256_KEY_PATH": str(cluster.key_path),
        **store_settings(store, folder),
        **(settings or {}),
    }
    headers: dict[str, str] = {}
    if with_key:
        environment |= {"ACCESS_METHODS": "keys", "LIMIT_REQUESTS_PER_MINUTE": "1000000"}
        headers = {"Authorization": f"Bearer {_create_key(environment)}"}
    with ExitStack() as stack:
        if store.mongodb:
            client = stack.enter_context(connect(store.mongodb, 5))
            stack.callback(client.drop_database, environment["MONGODB_MONITOR_DB"])
        log = stack.enter_context((folder / "log").open("wb"))
        server = _start(environment, log)
        stack.callback(server.wait, 60)
        stack.callback(server.terminate)
        until(lambda: answers(port), 60, f"gunicorn (see {folder / 'log'})")
        yield Service(f"http://127.0.0.1:{port}", cluster, server.pid, headers)


def store_settings(store: Store, folder: Path) -> dict[str, str]:
    """Return the settings of a store, the same ones for the same folder."""
    if store.mongodb is None:
        return {"SQLITE_PATH": str(folder / "store.sqlite3")}
    name = folder / "database"
    if not name.exists():
        name.write_text(f"benchmark_{new_uuid()}")
    return {"MONGODB_URI": store.mongodb, "MONGODB_MONITOR_DB": name.read_text()}


def _start(environment: Mapping[str, str], log: Any) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py"]
    application = "benchmarks.service:traced_app()"
    return subprocess.Popen([*argv, application], cwd=ROOT, env=environment, stdout=log, stderr=log)


def _create_key(environment: Mapping[str, str]) -> str:
    argv = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "benchmark", "--any-user"]
    made = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return made.stdout.strip()


def traced_app() -> Flask:
    """Return the application with a clock around its parts; `GET /parts` returns the measured times."""
    app = slurm_proxy.create_app()
    services = app.extensions["slurm_proxy"]
    seconds: defaultdict[str, list[float]] = defaultdict(list)

    def clock(part: Any, method: str, name: str) -> None:
        inner = getattr(part, method)

        @functools.wraps(inner)
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                seconds[name].append(time.perf_counter() - began)

        setattr(part, method, timed)

    clock(app, "wsgi_app", "request")
    for method in ("authenticate", "count_request"):
        clock(services.request_guard, method, f"guard {method}")
    clock(services.submitter, "submit", "use case")
    clock(services.slurm, "submit", "slurmrestd")
    clock(services.monitor, "run_cycle", "cycle")
    for method in ("poll", "read_accounting"):
        clock(services.poller_slurm, method, method)
    for method in ("apply_changes", "add_record", "accept_job", "claim", "settle"):
        clock(services.store, method, method)
    for method, sender in SENDERS.items():
        clock(sender, "send", f"send by {method}")
    app.add_url_rule("/parts", view_func=allow_unauthenticated(lambda: _summarize(seconds)))
    app.after_request(_name_worker)
    return app


def _name_worker(response: Response) -> Response:
    response.headers[WORKER_HEADER] = str(os.getpid())
    return response


def _summarize(seconds: defaultdict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return count, median and sum of each part in milliseconds, and forget them."""
    taken = {name: list(times) for name, times in seconds.items()}
    seconds.clear()
    return {
        name: {"count": len(times), "median": 1000 * statistics.median(times), "sum": 1000 * sum(times)}
        for name, times in taken.items()
    }
