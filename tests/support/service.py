"""slurm-proxy as its operator runs it: a process of its own, with requests over HTTP."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import requests

from tests.conftest import Cluster, until
from tests.support.real.processes import free_port
from tests.support.real.smtp import SmtpServer

ROOT = Path(__file__).parents[2]


class Service:
    """`python run.py` with settings; may be killed and started again, and leaves with its context."""

    root = ROOT  # the folder of the program

    def __init__(self, folder: Path, cluster: Cluster, smtp: SmtpServer, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONWARNINGS": "error",
            "FLASK_APP_PORT": str(self.port),
            "SLURM_REST_HOST": cluster.url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(cluster.key).decode(),
            "MONITOR_POLLING_SECONDS": "0.5",
            "MONITOR_LEASE_SECONDS": "3",
            "NOTIFICATIONS_CEILING": "0",  # one address gets all of them
            "NOTIFICATIONS_CLAIM_SECONDS": "20",
            "NOTIFICATIONS_SMTP_SERVER": smtp.host,
            "NOTIFICATIONS_SMTP_PORT": str(smtp.port),
            "NOTIFICATIONS_SMTP_SECURITY": "none",
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(self.root / "run.py")], env=self.environment, stdout=log, stderr=log
            )
        until(self._answers, 60, f"/ping (see {self.log})")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def flask(self, *arguments: str) -> str:
        """What the operator's command line prints, with the server's settings."""
        argv = [sys.executable, "-m", "flask", "--app", "app", *arguments]
        done = subprocess.run(
            argv, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=headers, timeout=60)

    def answer(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=60)

    def get(self, path: str, **headers: str) -> Any:
        response = self.answer(path, **headers)
        assert response.status_code == 200, response.text
        return response.json()

    def record(self, task: dict[str, Any]) -> Any:
        return self.get(f"/monitor/task_uuid/{task['uuid']}")["monitor"]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return requests.get(self.url + "/ping", timeout=1).text == "pong"
        except (requests.ConnectionError, requests.Timeout):
            return False

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(30)
