"""The commands of the documentation, as a reader copies them.

Those of the tutorial run in a shell, against a server on the stand-in for Slurm.
"""

import base64
import getpass
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app import create_app
from app.demo.cluster import LocalCluster
from app.environment import read_settings
from app.job_state import JobState
from app.web.dev_server import Server
from tests.support.fakes import FakeSlurm
from tests.support.real.processes import free_port
from tests.support.service import ROOT
from tests.support.tasks import make_task
from tests.support.web import post, prepared_app

DOCS = ROOT / "docs"
KEY = "a2V5IG9mIHRoZSBzdGFuZC1pbiBmb3IgU2x1cm0sIDMyIGJ5dGVz"


def shell_blocks(page: str) -> list[str]:
    """Return the blocks of shell commands of a page."""
    return re.findall(r"^ *```sh\n(.*?)^ *```$", (DOCS / page).read_text(), re.S | re.M)


def commands(page: str, program: str) -> list[list[str]]:
    """Return the arguments of each command of a page that begins with these words."""
    words = program.split()
    lines = re.findall(rf"^ *(?:\$ )?{re.escape(program)} .*$", (DOCS / page).read_text(), re.M)
    found = [shlex.split(line.strip().removeprefix("$ ")) for line in lines]
    return [line[len(words) :] for line in found]


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
    demo, send, look, again, fail, create, use = shell_blocks("tutorial/first-task.md")
    assert demo == "make demo\n"  # tests/system/test_run.py runs it
    (tmp_path / "demo").mkdir()  # as the demonstration does
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


@pytest.mark.parametrize(
    ("page", "flask"),
    [
        ("../README.md", ".venv/bin/flask"),
        ("how-to/authenticate-callers.md", "flask"),
        ("how-to/rotate-keys.md", "flask"),
    ],
)
def test_the_commands_for_keys_work(environment: dict[str, str], page: str, flask: str) -> None:
    run = create_app({**environment, "ACCESS_METHODS": "keys"}).test_cli_runner().invoke
    first = run(args=["keys", "create", "first", "--user", "alice"])
    (id_,) = re.findall("^sp_([0-9a-f]+)_", first.stdout)
    lines = commands(page, f"{flask} --app app keys")
    assert lines
    for line in lines:
        result = run(args=["keys", *(id_ if word == "1f0c7ab29de4" else word for word in line)])
        assert result.exit_code == 0, result.output
        assert line[0] != "create" or result.stdout.startswith("sp_")


def test_the_commands_that_send_messages_again_work(environment: dict[str, str]) -> None:
    app = create_app({**environment, "ACCESS_METHODS": "keys"})
    create = ["keys", "create", "ops", "--scope", "admin", "--any-user"]
    key = app.test_cli_runner().invoke(args=create).stdout.strip()
    answers = []
    for line in commands("how-to/retry-notifications.md", "curl"):
        method = "POST" if line[:2] == ["-X", "POST"] else "GET"
        path = line[-1].removeprefix("localhost:5001")
        headers = {"Authorization": f"Bearer {key}"}
        answers.append(app.test_client().open(path, method=method, headers=headers).json)
    listed, retried, all_retried = answers
    assert listed == {"notifications": [], "more": False}
    assert retried is not None
    assert retried["code"] == "unknown_notification"
    assert all_retried == {"retried": 0}


def test_the_commands_that_submit_a_task_again_work(tmp_path: Path) -> None:
    slurm = FakeSlurm()
    bodies = [
        dict(pairwise(line)).get("-d", "") for line in commands("how-to/submit-a-task-again.md", "curl")
    ]
    with prepared_app(tmp_path / "store.sqlite3", slurm) as app:
        client = app.test_client()
        post(client, "/submit", {"task": make_task(uuid="align-17", slurm={"nodelist": "n1"})})
        answers = [post(client, "/monitor/task_uuid/align-17/resubmit", body).json for body in bodies]
    assert [answer["resubmitted_from"] for answer in answers] == ["align-17", "align-17"]
    assert answers[1]["uuid"] == "align-17-b"
    assert [task.slurm.mem for task, _, _ in slurm.submitted] == [None, None, 8000]
    assert [task.slurm.nodelist for task, _, _ in slurm.submitted] == ["n1", "n1", None]


def test_the_commands_for_backups_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backups = tmp_path / "slurm-proxy"
    backups.mkdir()
    with prepared_app(tmp_path / "store.sqlite3", FakeSlurm()) as app:
        runner = app.test_cli_runner()
        assert post(app.test_client(), "/submit", {"task": make_task()}).status_code == 200
        made = runner.invoke(args=["records", "export", "backup.jsonl.gz"])
        assert made.exit_code == 0, made.output
        lines = commands("how-to/back-up.md", "flask --app app records")
        assert {line[0] for line in lines} == {"backup", "export", "import", "adopt"}
        for line in lines:
            arguments = [word.replace("/var/backups", str(tmp_path)) for word in line]
            result = runner.invoke(args=["records", *arguments])
            assert result.exit_code == 0, result.output
    assert (tmp_path / "slurm-proxy.copy").exists()
    assert len(list(backups.iterdir())) == 1


def test_the_commands_that_control_tasks_work(tmp_path: Path) -> None:
    slurm = FakeSlurm()
    changed, outcomes = [], []
    with prepared_app(tmp_path / "store.sqlite3", slurm) as app:
        client = app.test_client()
        task = make_task(uuid="my-task", slurm={"job_name": "train-1"})
        job_id = (post(client, "/submit", {"task": task}).json or {})["slurm_job_id"]
        for line in commands("how-to/control-tasks.md", "curl -X POST"):
            if line[0].endswith("/requeue"):
                slurm.put(job_id, JobState.RUNNING)
            changed.append(post(client, line[0].removeprefix("localhost:5001"), "").json["changed"])
        post(client, "/submit", {"task": make_task(uuid="other", slurm={"job_name": "train-2"})})
        for _, body in commands("how-to/control-tasks.md", "curl localhost:5001/monitor/cancel"):
            outcomes.append(post(client, "/monitor/cancel", body).json["tasks"][0]["outcome"])
    assert changed == [True, True, True, True]
    assert outcomes == ["would_be_cancelled", "cancelled"]
