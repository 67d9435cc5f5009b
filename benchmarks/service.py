"""slurm-proxy as the benchmarks run it: gunicorn with one worker, whose time is told part by part."""

import functools
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests
from flask import Flask

import app as slurm_proxy
from app.senders import SENDERS
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.store.mongo import connect
from app.web.auth import allow_unauthenticated
from tests.support.real.processes import answers, free_port, until
from tests.support.tasks import make_task, new_uuid

ROOT = Path(__file__).parent.parent
USER = "alice"
SLURM_URL = os.environ["TEST_SLURM_URL"]
KEY_PATH = Path(os.environ["TEST_SLURM_KEY_PATH"])


def held_task(**fields: Any) -> dict[str, Any]:
    slurm = {"mem": 10, "hold": True}
    return make_task(USER, "/tmp/slurm-proxy-benchmark", cwd="/tmp", slurm=slurm, **fields)


@contextmanager
def slurm_session() -> Iterator[Session]:
    mint = TokenMint(KEY_PATH.read_bytes(), 300)
    session = Session(Connection(SLURM_URL, mint, connect_timeout=3, read_timeout=30), "slurm")
    try:
        yield session
    finally:
        session.close()


@contextmanager
def service(
    folder: Path, mongodb: str | None, settings: Mapping[str, str], *, with_key: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Its address, and the headers that it wants: those of a key, or none.

    The log is `folder/log`; a database on `mongodb` is dropped at the end.
    """
    port, database = free_port(), new_uuid()
    environment = {
        "PATH": os.environ["PATH"],
        "TEST_SLURM_URL": SLURM_URL,
        "TEST_SLURM_KEY_PATH": str(KEY_PATH),
        "GUNICORN_BIND": f"127.0.0.1:{port}",
        "GUNICORN_WORKERS": "1",
        "SLURM_REST_HOST": SLURM_URL,
        "SLURM_JWT_HS256_KEY_PATH": str(KEY_PATH),
        "SQLITE_PATH": str(folder / "store.sqlite3"),
        **({"MONGODB_URI": mongodb, "MONGODB_MONITOR_DB": database} if mongodb else {}),
        **settings,
    }
    headers: dict[str, str] = {}
    if with_key:
        environment |= {"ACCESS_METHODS": "keys", "LIMIT_REQUESTS_PER_MINUTE": "1000000"}
        make = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "benchmark", "--any-user"]
        made = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py"]
    with ExitStack() as stack:
        if mongodb:
            client = stack.enter_context(connect(mongodb, 5))
            stack.callback(client.drop_database, database)
        log = stack.enter_context((folder / "log").open("wb"))
        server = subprocess.Popen(
            [*argv, "benchmarks.service:traced_app()"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        stack.callback(server.wait, 60)
        stack.callback(server.terminate)
        until(lambda: answers(port), 30, f"gunicorn (see {folder / 'log'})")
        yield f"http://127.0.0.1:{port}", headers


def parts(url: str) -> dict[str, dict[str, float]]:
    """What the service did since it was last asked: how often, and milliseconds at the median and in all."""
    found: dict[str, dict[str, float]] = requests.get(f"{url}/parts", timeout=30).json()
    return found


def traced_app() -> Flask:
    """The application, with a clock around its parts; `GET /parts` tells what it showed."""
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

    def told() -> dict[str, dict[str, float]]:
        found = {
            name: {
                "count": len(times),
                "median": 1000 * statistics.median(times),
                "sum": 1000 * sum(times),
            }
            for name, times in seconds.items()
        }
        seconds.clear()
        return found

    clock(app, "wsgi_app", "request")
    for method in ("authenticate", "count_request"):
        clock(services.request_guard, method, f"guard {method}")
    clock(services.submitter, "submit", "use case")
    clock(services.slurm, "submit", "slurmrestd")
    for method in ("poll", "accounting"):
        clock(services.slurm, method, method)
    clock(services.store, "apply_changes", "apply_changes")
    for method in ("add_record", "accept_job", "claim", "settle"):
        clock(services.store, method, method)
    for method, sender in SENDERS.items():
        clock(sender, "send", f"send by {method}")
    app.add_url_rule("/parts", view_func=allow_unauthenticated(told))
    return app
