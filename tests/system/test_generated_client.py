"""A client that openapi-python-client generates from the served document, as docs/how-to/ shows it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.job_state import JobState
from app.web.openapi.operations import OPERATIONS
from tests.conftest import Cluster
from tests.support.real.smtp import SmtpServer
from tests.support.service import ROOT, Service
from tests.support.tasks import make_task

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


@contextmanager
def scripted_server(states: Iterable[str | None]) -> Iterator[str]:
    """Yield the URL of a server that accepts each task, and shows the next of these states at each GET."""
    left = iter(states)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"uuid": "x", "slurm_job_id": 7, "slurm_job_state": "PENDING"})

        def do_GET(self) -> None:
            state, now = next(left), "2026-01-02T03:04:05Z"
            record = {"slurm_username": "alice", "slurm_job_id": 7, "slurm_job_state": state, "task": {}}
            record |= {"ended": state == "TIMEOUT", "succeeded": None}
            record |= {"created_at": now, "updated_at": now, "notifications": []}
            facts = {"username": "alice", "job_id": 7, "job_state": state, "exit_code": 0}
            self._answer({"slurm": facts, "monitor": record})

        def _answer(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def users_folder(local_user: str) -> Iterator[Path]:
    """Yield a folder in which the user's jobs can write."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        shutil.chown(path, local_user)
        yield Path(path)


def run_program(
    url: str, folder: Path, task: dict[str, Any], key: str | None = None
) -> subprocess.CompletedProcess[str]:
    program = block("python").replace("time.sleep(1)", "time.sleep(0.1)")
    if key is not None:
        program = program.replace("import Client", "import AuthenticatedClient")
        program = program.replace(
            f'Client("{SHOWN_URL}"', f'AuthenticatedClient("{SHOWN_URL}", token="{key}"'
        )
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "run_task.py").write_text(program.replace(SHOWN_URL, url))
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
    first = run_program(service.url, folder, task)
    assert first.returncode == 0, first.stderr
    job_id = service.record(task)["slurm_job_id"]
    assert first.stdout == f"submitted as job {job_id}\nFAILED with exit code 3\n"
    assert service.record(task)["task"] == task
    second = run_program(service.url, folder, task)
    assert second.stdout == f"in use already by job {job_id}\nFAILED with exit code 3\n", second.stderr


def test_the_generated_client_reads_why_a_task_is_refused(
    service: Service, folder: Path, local_user: str
) -> None:
    done = run_program(service.url, folder, make_task(local_user, cwd="relative"))
    assert done.returncode == 1
    assert done.stderr.startswith("task.cwd: must be an absolute path")


def test_the_program_of_the_page_goes_on_waiting_until_the_task_has_ended(folder: Path) -> None:
    states = [state.value for state in JobState if not state.is_settled]
    with scripted_server([None, *states, "TIMEOUT"]) as url:
        done = run_program(url, folder, make_task("alice"))
    assert done.stdout == "submitted as job 7\nTIMEOUT with exit code 0\n", done.stderr


def test_the_program_of_the_page_ends_with_the_reason_if_another_users_task_has_the_uuid(
    local_cluster: Cluster, folder: Path, tmp_path: Path, local_user: str
) -> None:
    settings = {"TASK_ALLOWED_SERVICE_USERS": local_user, "ACCESS_METHODS": "keys"}
    with SmtpServer(tmp_path) as smtp, Service(tmp_path, local_cluster, smtp, **settings) as service:
        service.start()
        task = make_task(local_user, str(tmp_path))
        owner = service.flask("keys", "create", "owner", "--any-user")
        service.post("/submit", {"task": task}, Authorization=f"Bearer {owner}").raise_for_status()
        other = service.flask("keys", "create", "other", "--user", "carol")
        done = run_program(service.url, folder, {**task, "username": "carol"}, other)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"task.uuid: {task['uuid']} is already used\n"
