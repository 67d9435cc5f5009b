"""Run the demonstration, `python run.py --demo`: the whole service without a cluster, and one task."""

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

_TASK_SECONDS = 60  # for the whole task
_TIMEOUT = 10  # seconds for one request
_WARNING = """\
This is a demonstration. Jobs run as processes of this machine, on a local stand-in for Slurm;
it listens on loopback only and does not authenticate callers: do not let other people use it."""


def run_demo(folder: Path) -> int:
    """Run one task in `folder`, and go on serving if there is a terminal.

    Returns:
        The exit code: 0 if the task succeeded and its notification was sent.
    """
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
        return _serve_and_run(read_settings(config), config, folder)
    finally:
        cluster.stop()


def _serve_and_run(settings: Settings, config: dict[str, Any], folder: Path) -> int:
    open_audit_trail(settings.AUDIT_LOG_PATH)
    with Server(create_app(config), settings) as server:
        _print(_WARNING + f"\n\nslurm-proxy listens on {server.url}\n")
        task = _hello_world_task(folder)
        ended_well = _run_task(server.url, task)
        if ended_well and sys.stdout.isatty():
            _print(_next_steps(server.url, task))
            _print("\nServing until Ctrl-C.")
            server.wait()
    return 0 if ended_well else 1


def _free_port(wanted: int) -> int:
    """Return the wanted port, or 0 (any free port) if the wanted port is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _hello_world_task(folder: Path) -> dict[str, Any]:
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


def _run_task(url: str, task: dict[str, Any]) -> bool:
    """Submit the task over HTTP, wait for its end, and print the record, the output and the message."""
    _print(f"POST {url}/submit\n{json.dumps({'task': task}, indent=2)}\n")
    answer = requests.post(f"{url}/submit", json={"task": task}, timeout=_TIMEOUT)
    _print(f"{answer.status_code} {answer.text}")
    if answer.status_code != 200:
        return False
    record = _follow_task(f"{url}/monitor/task_uuid/{task['uuid']}")
    _print(f"\nThe record, GET {url}/monitor/task_uuid/{task['uuid']}\n{json.dumps(record, indent=2)}")
    monitor, job = record["monitor"], record["slurm"]
    output = Path(task["dirs"]["output"]) / f"hello.{job['job_id']}.txt"
    if monitor["slurm_job_state"] != "COMPLETED" or not output.exists():
        return False
    _print(f"\nThe output file {output}\n{output.read_text()}")
    for item in monitor["notifications"]:
        _print(f"The notification, {item['status']} by {item['method']}")
        _print(f"Subject: {item['subject']}\n\n{item['text']}")
    return all(item["status"] == NotificationStatus.SENT for item in monitor["notifications"])


def _follow_task(url: str) -> dict[str, Any]:
    """Return the record once its notifications are sent, or its last state when the time is over."""
    began, shown, record = time.monotonic(), "", {}
    for record in _poll_record(url):
        state = record["monitor"]["slurm_job_state"]
        if state != shown:
            _print(f"{time.monotonic() - began:6.1f} s  {state}")
            shown = state
        notifications = record["monitor"]["notifications"]
        if notifications and all(item["sent_at"] for item in notifications):
            break
    return record


def _poll_record(url: str) -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + _TASK_SECONDS
    while time.monotonic() < deadline:
        yield requests.get(url, timeout=_TIMEOUT).json()
        time.sleep(0.1)


def _next_steps(url: str, task: dict[str, Any]) -> str:
    again = json.dumps({"task": {**task, "uuid": str(uuid.uuid4())}})
    return f"To send the next one:\n\n  curl -d {shlex.quote(again)} {url}/submit"


def _print(words: str) -> None:
    print(words, flush=True)  # noqa: T201 - the output of a command
