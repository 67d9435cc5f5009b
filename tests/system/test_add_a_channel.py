"""The page how-to/add-a-channel.md, followed on a copy of the repository: from an empty file to a message."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cluster, until
from tests.support.real.http_services import HttpService
from tests.support.real.smtp import SmtpServer
from tests.support.service import ROOT, Service
from tests.support.tasks import make_task

PAGE = ROOT / "docs/how-to/add-a-channel.md"
NEW_FILE = re.compile(r"^New file `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.S | re.M)
ADDITION = re.compile(
    r"[Ii]n `([^`]+)`, above\sthe\sline\s(?:`` |`)(.+?)(?: ``|`), add:\n\n```\w+\n(.*?)^```$", re.S | re.M
)
CHECKS = [  # those that know all channels, except the cases of a rig
    "tests/unit/senders/test_channel_parameters.py",
    "tests/unit/senders/test_senders.py::test_every_sender_answers_to_the_protocol",
    "tests/unit/test_settings.py::test_the_example_is_the_settings_and_their_defaults",
    "tests/unit/test_docs.py::test_every_word_that_a_caller_may_use_is_documented",
    "tests/unit/test_docs.py::test_the_generated_parts_of_a_page_are_up_to_date",
    "tests/contract/test_recorded_responses.py",
]


def run(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after all steps of the page."""
    folder = tmp_path_factory.mktemp("copy") / "slurm-proxy"
    ignored = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", "site", "*.sqlite3*")
    shutil.copytree(ROOT, folder, ignore=ignored)
    page = PAGE.read_text()
    new_files, additions = NEW_FILE.findall(page), ADDITION.findall(page)
    assert (len(new_files), len(additions)) == (1, page.count(", add:\n")) == (1, 6)
    for name, source in new_files:
        assert not (folder / name).exists()
        (folder / name).write_text(source)
    for name, line, addition in additions:
        text = (folder / name).read_text()
        assert text.count(f"\n{line}\n") == 1, f"{name} has not one line {line}"
        (folder / name).write_text(text.replace(f"\n{line}\n", f"\n{addition}{line}\n"))
    run(folder, "docs.generate_reference")
    assert "`.venv/bin/python -m tests.contract.test_recorded_responses --record`" in page
    run(folder, "tests.contract.test_recorded_responses", "--record")
    return folder


@pytest.fixture
def ntfy() -> Iterator[HttpService]:
    with HttpService() as service:
        yield service


def test_a_channel_added_by_the_page_passes_the_linter_and_the_tests_of_channels(copy: Path) -> None:
    run(copy, "ruff", "check", "--quiet", ".")
    run(copy, "ruff", "format", "--check", "--quiet", ".")
    run(copy, "pytest", "-q", "-m", "not real", "-p", "no:cacheprovider", *CHECKS)


def test_a_channel_added_by_the_page_delivers_the_message_of_a_job(
    copy: Path, ntfy: HttpService, local_cluster: Cluster, local_user: str, smtp: SmtpServer, tmp_path: Path
) -> None:
    settings = {"NOTIFICATIONS_NTFY_URL": ntfy.url, "TASK_ALLOWED_SERVICE_USERS": local_user}
    service = Service(tmp_path, local_cluster, smtp, **settings)
    service.root = copy
    params = {"topic": "jobs", "text": "Job ${slurm_job_id} is ${slurm_job_state}."}
    notification = {"methods": ["ntfy"], "params": {"ntfy": params}}
    folder = "/tmp/slurm-proxy-channels"
    task = make_task(local_user, folder, cwd="/tmp", cmd="true", params=[], notification=notification)
    with service:
        service.start()
        assert service.post("/submit", {"task": task}).status_code == 200
        until(lambda: ntfy.requests, 60, "the message")
        (request,) = ntfy.requests
        until(lambda: service.record(task)["notifications"][0]["status"] == "sent", 10, "its status")
        record = service.record(task)
        (item,) = record["notifications"]
        assert (item["method"], item["to"], item["event"]) == ("ntfy", "jobs", "end")
        message = request.json()
        assert (message["topic"], message["title"]) == ("jobs", item["subject"])
        assert f"Job {record['slurm_job_id']} is COMPLETED." in message["message"]
        assert "message by ntfy: it was sent to other" in service.flask("check", "--send", "ntfy:other")
    assert [request.json()["topic"] for request in ntfy.requests] == ["jobs", "other"]
