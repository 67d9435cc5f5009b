"""gunicorn in a copy of the project, for tests that change its `.env`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import requests

from tests.conftest import until
from tests.support.real.processes import free_port
from tests.support.service import ROOT

KEY = "c2VjcmV0IGtleSBmb3IgdGVzdHM="


class Gunicorn:
    """gunicorn in a copy of the project, whose `.env` belongs to the test."""

    def __init__(self, folder: Path, environment: dict[str, str], also_listen: str, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "gunicorn.log"
        self.settings = {
            "GUNICORN_BIND": f"127.0.0.1:{self.port}{also_listen}",
            "GUNICORN_WORKERS": "1",
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": KEY,
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            **settings,
        }
        for name in ("app", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "docker").mkdir()
        (folder / "docker/gunicorn.conf.py").write_text((ROOT / "docker/gunicorn.conf.py").read_text())
        self.write()
        self._environment = {"PATH": os.environ["PATH"], **environment}
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait(10)

    def start(self) -> None:
        argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=self.folder, env=self._environment, stdout=log, stderr=log
            )
        until(self._serves, 60, f"gunicorn (see {self.log})")

    def list_workers(self) -> list[int]:
        """Return the process ids of the workers, the oldest first."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(int(child) for child in children.split())

    def _serves(self) -> bool:
        """Return whether a worker answers: the port is open before there is one."""
        try:
            return requests.get(self.url + "/ping", timeout=10).ok
        except requests.ConnectionError:
            return False

    def write(self, **changes: str | None) -> None:
        """Write `.env` anew, with these changes; None removes a line."""
        lines = {**self.settings, **changes}
        text = "".join(f"{name}={value}\n" for name, value in lines.items() if value is not None)
        (self.folder / ".env").write_text(text)

    def reload(self, words: str) -> None:
        """Send SIGHUP; return when the words are in the log once more, and the new workers answer."""
        logged, booted = self.log.read_text().count(words), self.log.read_text().count("Booting worker")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log.read_text().count(words) > logged, 30, words)
        until(lambda: self.log.read_text().count("Booting worker") > booted, 30, "a new worker")
        until(lambda: self.log.read_text().count("Worker exiting") >= booted, 30, "the old worker's end")
        until(self._serves, 30, "an answer")

    @property
    def needs_a_key(self) -> bool:
        """Return whether a caller without a key is refused, as ACCESS_METHODS=keys demands."""
        status = requests.get(self.url + "/monitor/task_uuid/x", timeout=10).status_code
        assert status in (400, 401)
        return status == 401
