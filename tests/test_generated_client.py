"""A client that openapi-python-client generates from the served document, as docs/how-to/ shows it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.openapi.operations import OPERATIONS
from tests.conftest import Cluster
from tests.real.smtp import SmtpServer
from tests.service import ROOT, Service
from tests.tasks import make_task

PAGE = ROOT / "docs" / "how-to" / "generate-a-client.md"
SHOWN_URL = "http://127.0.0.1:5001"


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    return str(text)


@pytest.fixture(scope="module")
def service(local_cluster: Cluster, tmp_path_factory: Any) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    allowed = {"TASK_ALLOWED_SERVICE_USERS": local_cluster.user}
    with SmtpServer(folder) as smtp, Service(folder, local_cluster, smtp, **allowed) as service:
        service.start()
        yield service


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: Any) -> Path:
    """Return the folder in which the command of the page has generated the package."""
    folder: Path = tmp_path_factory.mktemp("client")
    (command,) = [line for line in block("sh").splitlines() if line.startswith("openapi-python-client")]
    program, *arguments = shlex.split(command.replace(SHOWN_URL, service.url))
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [tools / program, *arguments, "--fail-on-warning"],
        cwd=folder,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},  # it runs ruff
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    return folder


@pytest.fixture
def users_folder(local_user: str) -> Iterator[Path]:
    """Yield a folder in which the user's jobs can write."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        shutil.chown(path, local_user)
        yield Path(path)


def run_program(service: Service, folder: Path, task: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "run_task.py").write_text(block("python").replace(SHOWN_URL, service.url))
    return subprocess.run(
        [sys.executable, "-W", "error", "run_task.py", "task.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_generated_client_has_a_function_for_each_operation(folder: Path) -> None:
    functions = {path.stem for path in folder.glob("slurm_proxy_client/api/*/*.py")} - {"__init__"}
    assert functions == {re.sub("([A-Z])", r"_\1", found.id).lower() for found in OPERATIONS}


def test_the_generated_client_submits_polls_and_reads_a_duplicate_uuid(
    service: Service, folder: Path, local_user: str, users_folder: Path
) -> None:
    task = make_task(local_user, str(users_folder), cmd="exit 3 #", own={"deep": [1, None]})
    first = run_program(service, folder, task)
    assert first.returncode == 0, first.stderr
    job_id = service.record(task)["slurm_job_id"]
    assert first.stdout == f"submitted as job {job_id}\nFAILED with exit code 3\n"
    assert service.record(task)["task"] == task
    second = run_program(service, folder, task)
    assert second.stdout == f"in use already by job {job_id}\nFAILED with exit code 3\n", second.stderr


def test_the_generated_client_reads_why_a_task_is_refused(
    service: Service, folder: Path, local_user: str
) -> None:
    done = run_program(service, folder, make_task(local_user, cwd="relative"))
    assert done.returncode == 1
    assert done.stderr.startswith("task.cwd: must be an absolute path")
