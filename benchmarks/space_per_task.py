"""Measure how much space a hello-world task takes: record, backup, export, log and audit trail.

    python -m benchmarks.space_per_task [TASKS]

Each task is submitted, polled three times, looked up once, and its end announced by e-mail, on a cluster in
memory and with an SQLite file. `benchmarks/record_size.py` measures the records of MongoDB.
"""

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.job_state import JobState
from app.logs import configure_logging
from app.models.record import utc_now
from benchmarks.record_size import hello_world
from tests.support.fakes import FakeSlurm
from tests.support.real.smtp import SmtpServer
from tests.support.web import make_app, post, settings_with_sqlite

TASKS = 300


def run_tasks(folder: Path, count: int, **settings: Any) -> dict[str, float]:
    """Run tasks in a service of their own; return the bytes for each of them."""
    slurm: Any = FakeSlurm()
    store, audit, log = (folder / name for name in ("store.sqlite3", "audit.jsonl", "log"))
    with SmtpServer(folder) as smtp, log.open("w") as stream, contextlib.redirect_stderr(stream):
        mail = {"NOTIFICATIONS_SMTP_SERVER": smtp.host, "NOTIFICATIONS_SMTP_PORT": smtp.port}
        others = {"NOTIFICATIONS_SMTP_SECURITY": "none", "NOTIFICATIONS_CEILING": 0, "AUDIT_LOG_PATH": audit}
        app = make_app(settings_with_sqlite(store, **mail, **others, **settings), slurm)
        configure_logging(app.config["SLURM_PROXY_SETTINGS"])
        services = app.extensions["slurm_proxy"]
        services.store.prepare()
        client = app.test_client()
        tasks = [hello_world(number) for number in range(count)]
        ids = [post(client, "/submit", {"task": task}).json["slurm_job_id"] for task in tasks]
        for state in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETED):
            for job_id in ids:
                slurm.put(job_id, state, start_time=utc_now(), nodes="node-0042", exit_code=0)
            services.monitor.run_cycle(utc_now())
        for task in tasks:
            client.get(f"/monitor/task_uuid/{task['uuid']}")
        while services.delivery.deliver_one("email", utc_now() + timedelta(seconds=1)):
            pass
        assert len(smtp.mails) == count
        services.store.close()
    runner = app.test_cli_runner()
    for command, name in (("backup", "backup.sqlite3"), ("export", "e.jsonl"), ("export", "e.jsonl.gz")):
        assert runner.invoke(args=["records", command, str(folder / name)]).exit_code == 0
    services.store.close()
    files = {
        "record, in SQLite with indexes": store,
        "backup of SQLite": folder / "backup.sqlite3",
        "export": folder / "e.jsonl",
        "export, compressed": folder / "e.jsonl.gz",
        f"log, {settings['LOG_FORMAT']}": log,
        "audit trail": audit,
    }
    return {name: path.stat().st_size / count for name, path in files.items()}


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0]) if arguments else TASKS
    sizes: dict[str, float] = {}
    for form in ("text", "json"):
        with tempfile.TemporaryDirectory() as folder:
            sizes |= run_tasks(Path(folder), count, LOG_FORMAT=form)
    for name, size in sizes.items():
        print(f"{name:<32}{size:>7.0f} bytes a task")


if __name__ == "__main__":
    main(sys.argv[1:])
