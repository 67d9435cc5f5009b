"""`python run.py --demo`: the whole service on its embedded parts, and one task from end to end."""

import base64
import getpass
import json
import os
import secrets
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from app import create_app
from app.access.audit import open_audit_trail
from app.constants import Settings
from app.demo.cluster import LocalCluster
from app.environment import read_settings
from app.models.record import NotificationStatus
from app.web.dev_server import Server

_PATIENCE = 60  # seconds for the whole task
_TIMEOUT = 10  # seconds for one request
_WARNING = """\
This is a demonstration. Jobs run as processes of this machine, on a local stand-in for Slurm;
it listens on loopback alone, asks nobody for a key, and must never serve anybody else."""


def run_demo(folder: Path) -> int:
    """Runs one task in `folder`, and goes on serving where there is a terminal; 0 if all went well."""
    folder.mkdir(exist_ok=True)
    key = secrets.token_bytes(32)
    cluster = LocalCluster(key=key, cpus=max(2, os.cpu_count() or 2))
    config = {
        "SLURM_REST_HOST": cluster.start(),
        "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(key).decode(),
        "SLURM_REST_USERNAME": "slurm",
        "TASK_ALLOWED_SERVICE_USERS": getpass.getuser(),
        "FLASK_APP_HOST": "127.0.0.1",
        "LOG_LEVEL": "WARNING",
        "AUDIT_LOG_PATH": folder / "audit.log",  # its lines would interrupt the story
        "ACCESS_METHODS": (),
        "ACCESS_WITHOUT_PROOF": False,
        "FLASK_APP_PORT": _free_port(read_settings().FLASK_APP_PORT),
        "MONGODB_URI": None,
        "SQLITE_PATH": folder / f"demo-{os.getpid()}.sqlite3",
        "MONITOR_POLLING_SECONDS": 0.25,
    }
    try:
        return _demonstrate(read_settings(config), config, folder)
    finally:
        cluster.stop()


def _demonstrate(settings: Settings, config: dict[str, Any], folder: Path) -> int:
    open_audit_trail(settings.AUDIT_LOG_PATH)
    with Server(create_app(config), settings) as server:
        _say(_WARNING + f"\n\nslurm-proxy listens on {server.url}\n")
        task = _hello_world(folder)
        ended_well = _run(server.url, task)
        _say(_next_steps(server.url, task))
        if ended_well and sys.stdout.isatty():
            _say("\nServing until Ctrl-C.")
            server.wait()
    return 0 if ended_well else 1


def _free_port(wanted: int) -> int:
    """The wanted port, or 0 (any that is free) where something else has it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _hello_world(folder: Path) -> dict[str, Any]:
    parent = folder / "hello-world"
    dirs = {"parent": parent, **{name: parent / name for name in ("input", "output", "error")}}
    return {
        "name": "generic",
        "uuid": str(uuid.uuid4()),
        "username": getpass.getuser(),
        "cwd": str(folder),
        "cmd": "sleep 1; echo",
        "params": ["-e", '"hello, world! (job $SLURM_JOB_ID of $SLURM_JOB_USER at `date`)"'],
        "dirs": {name: str(path) for name, path in dirs.items()},
        "slurm": {
            "job_name": "hello-world",
            "time": 1,
            "mem": 100,
            "cpus_per_task": 1,
            "output": "hello.%j.txt",
            "error": "hello.%j.err.txt",
        },
        "notification": {
            "methods": ["test"],
            "params": {
                "test": {"subject": "hello, world has ended", "body": "The demonstration's own words."}
            },
        },
    }


def _run(url: str, task: dict[str, Any]) -> bool:
    """Submits the task over HTTP, follows it to its end, and shows what became of it."""
    _say(f"POST {url}/submit\n{json.dumps({'task': task}, indent=2)}\n")
    answer = requests.post(f"{url}/submit", json={"task": task}, timeout=_TIMEOUT)
    _say(f"{answer.status_code} {answer.text}")
    if answer.status_code != 200:
        return False
    record = _followed(f"{url}/monitor/task_uuid/{task['uuid']}")
    _say(f"\nThe record, GET {url}/monitor/task_uuid/{task['uuid']}\n{json.dumps(record, indent=2)}")
    monitor, job = record["monitor"], record["slurm"]
    output = Path(task["dirs"]["output"]) / f"hello.{job['job_id']}.txt"
    if monitor["slurm_job_state"] != "COMPLETED" or not output.exists():
        return False
    _say(f"\nThe output file {output}\n{output.read_text()}")
    for item in monitor["notifications"]:
        _say(f"The notification, {item['status']} by {item['method']}")
        _say(f"Subject: {item['subject']}\n\n{item['text']}")
    return all(item["status"] == NotificationStatus.SENT for item in monitor["notifications"])


def _followed(url: str) -> dict[str, Any]:
    """The record once its notifications are out, or as it stands when patience ends."""
    began, shown, record = time.monotonic(), "", {}
    for record in _records(url):
        state = record["monitor"]["slurm_job_state"]
        if state != shown:
            _say(f"{time.monotonic() - began:6.1f} s  {state}")
            shown = state
        notifications = record["monitor"]["notifications"]
        if notifications and all(item["sent_at"] for item in notifications):
            break
    return record


def _records(url: str) -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield requests.get(url, timeout=_TIMEOUT).json()
        time.sleep(0.1)


def _next_steps(url: str, task: dict[str, Any]) -> str:
    again = json.dumps({"task": {**task, "uuid": str(uuid.uuid4())}})
    return f"To send the next one:\n\n  curl -d {shlex.quote(again)} {url}/submit"


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 - a demonstration talks
