"""A server on the stand-in for Slurm, for the scripts of the documentation."""

import base64
import getpass
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        self.uuids: set[str] = set()  # of the tasks that were submitted
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
        if request.method == "POST" and response.status_code == 200:
            self.uuids.add((response.json or {})["uuid"])
        return response

    def write(self, name: str, script: str) -> None:
        """Write a script that can be executed."""
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, with the address of the server."""
        return subprocess.run(
            command,
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


@contextmanager
def scripted_site(folder: Path) -> Iterator[Site]:
    """Yield a server whose jobs run as the user of the tests, in `folder`."""
    cluster = LocalCluster(KEY, cpus=4)
    site = Site(folder, cluster.start())
    with site.server:
        yield site
    cluster.stop()
