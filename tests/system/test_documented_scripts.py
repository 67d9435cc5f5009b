"""The scripts of the documentation, as a reader copies them, against a server on the stand-in for Slurm."""

import base64
import getpass
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Response, request

from app import create_app
from app.demo.cluster import LocalCluster
from app.environment import read_settings
from app.web.dev_server import Server
from tests.support.real.processes import free_port
from tests.support.service import ROOT
from tests.support.tasks import make_task

DOCS = ROOT / "docs"
KEY = b"key of the stand-in for Slurm, 32 bytes"


def scripts_of(page: str, language: str) -> list[str]:
    """Return the scripts of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.S | re.M)


class Site:
    """A server whose requests are counted, and a folder in which scripts run."""

    def __init__(self, folder: Path, cluster_url: str) -> None:
        self.folder = folder
        self.requests: list[str] = []
        user = getpass.getuser()
        settings = {
            "SLURM_REST_HOST": cluster_url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(KEY).decode(),
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            "MONITOR_POLLING_SECONDS": "0.25",
            "TASK_ALLOWED_SERVICE_USERS": user,
            "FLASK_APP_PORT": str(free_port()),
            "FLASK_APP_HOST": "127.0.0.1",
        }
        app = create_app(settings)
        app.after_request(self._count)
        self.server = Server(app, read_settings(settings))

    def _count(self, response: Response) -> Response:
        self.requests.append(f"{request.method} {request.path} {response.status_code}")
        return response

    def run(self, script: str, *arguments: str, program: str = "bash") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "-s", *arguments],
            input=script,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "SLURM_PROXY_URL": self.server.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def submit(self, command: str, **fields: Any) -> str:
        """Submit a task, and return its uuid."""
        folder = str(self.folder)
        task = make_task(getpass.getuser(), folder, cwd=folder, cmd=command, params=[], **fields)
        answer = requests.post(f"{self.server.url}/submit", json={"task": task}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(task["uuid"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    cluster = LocalCluster(KEY, cpus=4)
    site = Site(tmp_path, cluster.start())
    with site.server:
        yield site
    cluster.stop()


def test_the_script_that_waits_prints_the_record_and_tells_success_by_its_status(site: Site) -> None:
    (script,) = scripts_of("how-to/wait-for-a-task.md", "bash")
    for command, status in (("sleep 1", 0), ("sleep 1; exit 3", 1)):
        uuid = site.submit(command)
        site.requests.clear()
        done = site.run(script, uuid)
        assert done.returncode == status, done.stderr
        record = json.loads(done.stdout)
        assert (record["task"]["uuid"], record["ended"]) == (uuid, True)
        assert len(site.requests) == 1
    unknown = site.run(script, "none")
    assert unknown.returncode == 2
    assert '"code":"unknown_task"' in unknown.stderr


def test_the_script_that_waits_honours_retry_after(site: Site) -> None:
    (script,) = scripts_of("how-to/wait-for-a-task.md", "bash")
    uuid = site.submit("sleep 60", slurm={"hold": True})
    threading.Timer(0.5, site.server._services.waiting.stop).start()
    site.requests.clear()
    began = time.monotonic()
    threading.Timer(
        3.5, lambda: requests.post(f"{site.server.url}/monitor/task_uuid/{uuid}/cancel", timeout=60)
    ).start()
    done = site.run(script, uuid)
    seconds = time.monotonic() - began
    assert done.returncode == 1
    assert len([name for name in site.requests if name.startswith("GET")]) <= seconds + 2, site.requests
