"""What a submission costs, as a ratio to slurmrestd's own in the same run.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.submit [--mongodb mongodb://…] [--number N]

Starts gunicorn with one worker, and submits held jobs in turns: to slurmrestd itself, and by POST /submit.
Both keep their connection. Cancels the jobs afterwards.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests

from app.messages.plan import Planner
from app.models.json_body import read_object
from app.models.record import TaskRecord, utc_now
from app.models.task import CatalogueEntry, SubmitRequest, Task, parse
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.real.processes import answers, free_port, until
from tests.tasks import make_task, new_uuid

ROOT = Path(__file__).parent.parent
USER = "alice"


def held_task() -> dict[str, Any]:
    return make_task(USER, "/tmp/slurm-proxy-benchmark", cwd="/tmp", slurm={"mem": 10, "hold": True})


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def store_seconds(store: TaskStore, number: int) -> float:
    """The two writes of a submission, by themselves."""

    def write() -> None:
        now, task = utc_now(), held_task()
        record = TaskRecord(task=task, slurm_username=USER, created_at=now, updated_at=now)
        store.add(record)
        store.release(record)

    store.prepare()
    return statistics.median(seconds(write) for _ in range(number))


def check_seconds(number: int) -> float:
    """To read a body, check its task, and plan its messages, by themselves."""
    raw = json.dumps({"task": held_task()}).encode()
    context = {"catalogue": {"generic": CatalogueEntry()}, "refused_users": (), "methods": ("test",)}
    planner = Planner(context["catalogue"], ["test"])  # type: ignore[arg-type]

    def check() -> None:
        body, now = read_object(raw), utc_now()
        parse(SubmitRequest, body, context)
        record = TaskRecord(task=body["task"], slurm_username=USER, created_at=now, updated_at=now)
        planner.at_submission(record, now)

    return statistics.median(seconds(check) for _ in range(number))


def client_seconds(session: Session, number: int, ids: list[int]) -> float:
    """What the service's own client needs for a submission, token, job script and answer included."""
    client = SlurmClient(session)

    def submit() -> None:
        task = Task.model_validate(held_task())
        expires = utc_now() + timedelta(minutes=5)
        ids.append(client.submit(task, "echo hello", f"slurm-proxy:{task.uuid}", expires)[0])

    return statistics.median(seconds(submit) for _ in range(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mongodb", help="the address of a MongoDB; without it SQLite")
    parser.add_argument("--number", type=int, default=300)
    options = parser.parse_args()
    url, key_path = os.environ["TEST_SLURM_URL"], Path(os.environ["TEST_SLURM_KEY_PATH"])
    mint = TokenMint(key_path.read_bytes(), 300)
    session = Session(Connection(url, mint, connect_timeout=3, read_timeout=30), "slurm")
    api = session.speak().api
    raw_body = {
        "script": "#!/bin/bash\ntrue\n",
        "job": {
            "current_working_directory": "/tmp",
            "environment": ["PATH=/bin"] if session.speak().is_structured else {"PATH": "/bin"},
            "hold": True,
            "memory_per_node": 10,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        port, path = free_port(), Path(folder) / "store.sqlite3"
        environment = {
            "PATH": os.environ["PATH"],
            "GUNICORN_BIND": f"127.0.0.1:{port}",
            "GUNICORN_WORKERS": "1",
            "SLURM_REST_HOST": url,
            "SLURM_JWT_HS256_KEY_PATH": str(key_path),
            "SQLITE_PATH": str(path),
        }
        database = new_uuid()
        store: TaskStore = SqliteStore(path)
        if options.mongodb:
            environment |= {"MONGODB_URI": options.mongodb, "MONGODB_MONITOR_DB": database}
            store = MongoStore(connect(options.mongodb, 5), database, "jobs")
        argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            until(lambda: answers(port), 30, "gunicorn")
            http, raw_http = requests.Session(), requests.Session()
            ids: list[int] = []

            def raw() -> None:
                answer = raw_http.post(
                    f"{url}/slurm/{api}/job/submit", json=raw_body, headers=mint.headers(USER), timeout=30
                )
                ids.append(answer.json()["job_id"])

            def ours() -> None:
                answer = http.post(f"http://127.0.0.1:{port}/submit", json={"task": held_task()}, timeout=30)
                ids.append(answer.json()["slurm_job_id"])

            for call in (raw, ours):  # so that both are warm
                for _ in range(20):
                    call()
            times = [(seconds(raw), seconds(ours)) for _ in range(options.number)]
            raw_median, median = (statistics.median(column) for column in zip(*times, strict=True))
            writes = store_seconds(store, options.number)
            ping = statistics.median(
                seconds(lambda: http.get(f"http://127.0.0.1:{port}/ping", timeout=30))
                for _ in range(options.number)
            )
            checks = check_seconds(options.number)
            own = client_seconds(session, options.number, ids)
        finally:
            server.terminate()
            server.wait(30)
            store.close()
    for job_id in ids:
        session.send("DELETE", f"job/{job_id}", user=USER)
    session.close()
    print(
        f"{'MongoDB' if options.mongodb else 'SQLite'}, {options.number} submissions each, medians:"
        f" slurmrestd {1000 * raw_median:.2f} ms, slurm-proxy {1000 * median:.2f} ms,"
        f" ratio {median / raw_median:.2f}. By themselves, two writes of the store take"
        f" {1000 * writes:.2f} ms, GET /ping {1000 * ping:.2f} ms, reading and checking the task"
        f" {1000 * checks:.2f} ms, and our own client's submission to slurmrestd {1000 * own:.2f} ms"
    )


if __name__ == "__main__":
    main()
