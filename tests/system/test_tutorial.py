"""The commands of the tutorial, run by a shell against a server on the stand-in for Slurm."""

import base64
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import create_app
from app.demo.cluster import LocalCluster
from app.environment import read_settings
from app.web.dev_server import Server
from tests.support.real.processes import free_port
from tests.support.service import ROOT

PAGE = ROOT / "docs/tutorial/first-task.md"
KEY = "a2V5IG9mIHRoZSBzdGFuZC1pbiBmb3IgU2x1cm0sIDMyIGJ5dGVz"


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.S | re.M)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the settings of a server on the stand-in; jobs run as the user of the tests."""
    cluster = LocalCluster(key=base64.b64decode(KEY), cpus=2)
    yield {
        "SLURM_REST_HOST": cluster.start(),
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "SQLITE_PATH": str(tmp_path / "store.sqlite3"),
        "MONITOR_POLLING_SECONDS": "0.25",
        "TASK_ALLOWED_SERVICE_USERS": getpass.getuser(),
        "FLASK_APP_PORT": str(free_port()),
    }
    cluster.stop()


def run(block: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block as it is printed, on the port of the test, and return what it shows."""
    script = block.replace("127.0.0.1:5001", f"127.0.0.1:{environment['FLASK_APP_PORT']}")
    script = script.replace("curl ", "curl -sS ").replace(".venv/bin/flask", f"{sys.executable} -m flask")
    path = os.environ["PATH"]
    argv = ["bash", "-euc", script]
    shown = subprocess.run(
        argv,
        cwd=folder,
        env={"PATH": path, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_the_tutorial_shows_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    send, look, again, fail, create, use = shell_blocks()
    settings = read_settings({**environment, "FLASK_APP_HOST": "127.0.0.1"})
    with Server(create_app({**environment}), settings):
        assert '"uuid":"my-first-task"' in run(send, tmp_path, environment)
        shown = run(look, tmp_path, environment)
        assert '"COMPLETED"' in shown
        assert '"subject":"My first task: COMPLETED"' in shown
        assert re.search(r"^hello from job \d+$", shown, re.M)
        assert '"duplicate_uuid"' in run(again, tmp_path, environment)
        shown = run(fail, tmp_path, environment)
        assert '"subject":"[FAILED] My first task: FAILED"' in shown
    with_keys = {**environment, "ACCESS_METHODS": "keys"}
    with Server(create_app({**with_keys}), read_settings(with_keys)):
        shown = run(create + use, tmp_path, with_keys)
        assert "my-first-key" in shown
        assert '"not_authenticated"' in shown
        assert '"uuid":"my-third-task"' in shown
