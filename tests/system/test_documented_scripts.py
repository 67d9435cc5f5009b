"""The commands that find tasks and wait for them, as a reader copies them, on the stand-in for Slurm."""

import getpass
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.scripts import Site, scripted_site, scripts_of

FIND_TASKS = "how-to/find-tasks.md"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with scripted_site(tmp_path) as site:
        yield site


def test_the_script_that_waits_prints_the_record_and_tells_success_by_its_status(site: Site) -> None:
    site.write("wait-for-task", *scripts_of("how-to/wait-for-a-task.md", "bash"))
    for command, status in (("sleep 1", 0), ("sleep 1; exit 3", 1)):
        uuid = site.submit(command)
        site.requests.clear()
        done = site.call("./wait-for-task", uuid)
        assert done.returncode == status, done.stderr
        record = json.loads(done.stdout)
        assert (record["task"]["uuid"], record["ended"]) == (uuid, True)
        assert len(site.requests) == 1
    unknown = site.call("./wait-for-task", "none")
    assert unknown.returncode == 2
    assert '"code":"unknown_task"' in unknown.stderr


def test_the_script_that_waits_honours_retry_after(site: Site) -> None:
    site.write("wait-for-task", *scripts_of("how-to/wait-for-a-task.md", "bash"))
    uuid = site.submit("sleep 60", slurm={"hold": True})
    threading.Timer(0.5, site.server._services.waiting.stop).start()
    site.requests.clear()
    began = time.monotonic()
    threading.Timer(
        3.5, lambda: requests.post(f"{site.server.url}/monitor/task_uuid/{uuid}/cancel", timeout=60)
    ).start()
    done = site.call("./wait-for-task", uuid)
    seconds = time.monotonic() - began
    assert done.returncode == 1
    assert len([name for name in site.requests if name.startswith("GET")]) <= seconds + 2, site.requests


def test_the_single_commands_of_the_page_work(site: Site) -> None:
    for uuid in ("my-task", "my-other-task"):
        site.submit("true", uuid=uuid)
    one, several = (
        json.loads(site.call("bash", "-c", command.replace("localhost:5001", site.server.url)).stdout)
        for command in scripts_of("how-to/wait-for-a-task.md", "sh")
    )
    assert one["monitor"]["succeeded"]
    assert [task["ended"] for task in several["tasks"]] == [True, True]


def test_the_commands_of_the_page_find_tasks(site: Site) -> None:
    site.submit("sleep 60", uuid="my-task")
    site.submit("exit 3", uuid="my-other-task", slurm={"job_name": "train-1"})
    path = f"{site.server.url}/monitor?uuid=my-other-task&wait=60&until=end"
    assert requests.get(path, timeout=90).json()["tasks"][0]["succeeded"] is False
    found = []
    for command in scripts_of(FIND_TASKS, "sh"):
        done = site.call(
            "bash", "-c", f"USER={getpass.getuser()}; {command}".replace("localhost:5001", site.server.url)
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    running, failed, yesterday, of_kind, both = found
    assert [task["uuid"] for task in json.loads(running)["tasks"]] == ["my-task"]
    assert failed.split("\t")[:3] == ["my-other-task", "train-1", "FAILED"]
    assert json.loads(yesterday) == {"tasks": [], "next": None}
    assert [task["uuid"] for task in json.loads(of_kind)["tasks"]] == ["my-other-task"]
    assert [task["uuid"] for task in json.loads(both)["tasks"]] == ["my-task", "my-other-task"]


def test_the_script_walks_all_pages(site: Site) -> None:
    (script,) = scripts_of(FIND_TASKS, "bash")
    site.write("list-tasks", script.replace("limit=1000", "limit=2"))
    uuids = [site.submit("true") for _ in range(5)]
    done = site.call("./list-tasks", f"username={getpass.getuser()}", "since=1h", "order=oldest")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["uuid"] for line in done.stdout.splitlines()] == uuids
    assert len([name for name in site.requests if name == "GET /monitor 200"]) == 3
    assert site.call("./list-tasks", "state=faild").returncode != 0
