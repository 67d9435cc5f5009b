"""The documentation agrees with the program."""

import configparser
import json
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.constants import MAX_BODY_BYTES
from app.environment import read_settings
from app.job_state import JobState
from app.messages.placeholders import PLACEHOLDERS
from app.messages.plan import Planner
from app.messages.rendering import compose_digest, render_text
from app.models.content import Content
from app.models.job import SlurmJob
from app.models.notification_request import EventName
from app.models.record import TaskRecord
from app.models.record_state import MAX_WAIT_SECONDS
from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.senders import SENDERS, find_channel
from app.web.openapi.operation import Operation
from app.web.openapi.operations import OPERATIONS
from docs import generate_reference
from tests.support.tasks import make_email, make_task

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
FIXED = (  # The owner's own lines, which stay as they are.
    """
cd docker
docker image build -t slurm-proxy --build-context parent=../ .. -f Dockerfile
docker compose -f docker-compose-slurm-proxy.yml build
docker compose -f docker-compose-slurm-proxy.yml up
docker compose -f docker-compose-slurm-proxy.yml down
""",
    "Storage: a record of the hello-world task takes 3.8 kB in SQLite (with its indexes) and 2.8 kB in"
    " MongoDB on average\n(`python benchmarks/record_size.py [mongodb://…]`). supervisord keeps five log"
    " files of 10 MB each for standard output and for\nstandard error: 100 MB.\n",
    "\n * MongoDB connection failed - is the server running?\n",
)
START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def job_of(state: JobState, minutes: float = 95, **fields: Any) -> SlurmJob:
    base = {
        "job_id": 4711,
        "username": "ann",
        "job_state": state,
        "nodes": "node-0042",
        "cpus": 8,
        "memory_mb": 65536,
        "time_limit_minutes": 240,
        "submit_time": START,
        "start_time": START,
        "end_time": START + timedelta(minutes=minutes) if state.is_settled else None,
    }
    return SlurmJob.model_validate({**base, **fields})


def content_of(job: SlurmJob, at: datetime = START, events: tuple[str, ...] = ("end",)) -> Content:
    notification = make_email(
        subject="Alignment of sample ${name}: ${slurm_job_state}",
        body="Alignment has completed successfully. The reads are in ${output}.",
    )
    task = make_task(
        "ann",
        "/home/ann/align",
        uuid="123e4567-e89b-12d3-a456-426614174000",
        slurm={"job_name": "align-17", "output": "align.%j.txt"},
        notification={**notification, "events": list(events)},
    )
    record = TaskRecord(task=task, slurm_username="ann", created_at=START, updated_at=START)
    (item,) = Planner({}, ["email"], find_channel).plan_events(record, job, at).notifications
    assert item.content is not None
    return item.content


GOOD = job_of(JobState.COMPLETED, exit_code=0, cpu_seconds=36500, max_memory_bytes=3 * 2**30)
BAD = job_of(JobState.FAILED, 2, job_id=4712, exit_code=127, reason="NonZeroExitCode", cpu_seconds=3)
EXAMPLES = {
    "Completed": content_of(GOOD),
    "Failed": content_of(BAD),
    "Out of memory": content_of(
        job_of(
            JobState.OUT_OF_MEMORY,
            memory_mb=4096,
            max_memory_bytes=4 * 2**30,
            signal=9,
            reason="OutOfMemory",
            cpu_seconds=22000,
        )
    ),
    "Time-out": content_of(
        job_of(JobState.TIMEOUT, 240, reason="TimeLimit", cpu_seconds=110000, max_memory_bytes=50 * 2**30)
    ),
    "80 % of the time limit": content_of(
        job_of(JobState.RUNNING), START + timedelta(minutes=200), ("time_limit_80",)
    ),
    "Array summary": content_of(
        job_of(
            JobState.FAILED,
            exit_code=1,
            reason="NonZeroExitCode",
            array_tasks={JobState.COMPLETED: 97, JobState.FAILED: 3},
            failed_tasks="2,7-8",
        )
    ),
    "Digest": compose_digest([content_of(GOOD), content_of(BAD), content_of(GOOD)]),
}


def shown(content: Content) -> str:
    return f"Subject: {content.subject}\n\n{render_text(content)}"


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a page, without their fences."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / name).read_text(), re.S | re.M)
    return [text for word, text in found if word == language]


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_messages_shown_are_those_that_people_get(title: str) -> None:
    page = (DOCS / "reference/messages.md").read_text()
    assert f"### {title}\n\n```text\n{shown(EXAMPLES[title])}```\n" in page


@pytest.mark.parametrize("word", [*PLACEHOLDERS, *EventName, "pending_over", *SENDERS])
def test_every_word_that_a_caller_may_use_is_documented(word: str) -> None:
    pages = (DOCS / "reference/messages.md").read_text() + (DOCS / "reference/notifications.md").read_text()
    assert re.search(rf"`(\$\{{)?{word}\}}?`", pages), word


def test_the_example_of_a_notification_is_a_good_one() -> None:
    (example,) = blocks("reference/notifications.md", "json")
    task = make_task(notification=json.loads(example))
    Task.model_validate(task)


@pytest.mark.parametrize("name", [*Task.model_fields, *SlurmOptions.model_fields])
def test_every_field_of_a_task_is_documented(name: str) -> None:
    assert re.search(rf"[`\s]{name}[`\s]", (DOCS / "reference/task.md").read_text()), name


@pytest.fixture(scope="module")
def source() -> generate_reference.Source:
    return generate_reference.read_source()


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=lambda page: page.stem)
def test_the_generated_parts_of_a_page_are_up_to_date(page: Path, source: generate_reference.Source) -> None:
    text = page.read_text()
    assert text == generate_reference.generated_page(text, source), "run `make reference`"


def test_every_generated_part_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert set(re.findall(r"<!-- generated: (\S+) -->", pages)) == set(generate_reference.PARTS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_route_has_a_row_with_its_scopes(operation: Operation) -> None:
    page = (DOCS / "reference/routes.md").read_text()
    scopes = ", ".join(f"`{word}`" for word in operation.scopes) or "any" * operation.is_for_every_caller
    scopes += f" or `{operation.other_scope}`" if operation.other_scope else ""
    route = rf"{operation.method} {re.escape(operation.path)}"
    assert re.search(rf"^\| `{route}` \| {scopes} \|", page, re.M)
    assert f"\n### `{operation.method} {operation.path}`\n" in page


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_project_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:app|tests|docs|docker|benchmarks)/[\w./-]*)`", page.read_text())
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing <= {"app/senders/ntfy.py"}  # the example of a channel


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_the_navigation_of_the_site_lists_every_page() -> None:
    _, navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")
    listed = re.findall(r": (\S+\.md)$", navigation, re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_lines_of_the_owner_stay_as_they_are() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    assert [lines for lines in FIXED if lines not in pages] == []


def test_every_target_of_make_is_documented() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    documented = re.findall(r"^\| `make (\w+)` \|", (DOCS / "reference/commands.md").read_text(), re.M)
    assert sorted(documented) == sorted(targets.split())


EXECUTED = {  # how a command begins, and the test that executes it
    "make demo": "tests/system/test_run.py",
    "wget -O- --content-on-error --post-data": "tests/system/test_end_to_end.py",
    ".venv/bin/flask --app app keys": "tests/system/test_documented_commands.py",
    "flask --app app keys": "tests/system/test_documented_commands.py",
    "flask --app app check": "tests/system/test_check.py",
    ".venv/bin/flask --app app check": "tests/system/test_check.py",
    ".venv/bin/gunicorn -c docker/gunicorn.conf.py 'app:create_app()'": "tests/system/test_startup.py",
    "echo $?": "tests/system/test_check.py",
    "flask --app app records": "tests/system/test_documented_commands.py",
    "curl 'localhost:5001/notifications": "tests/system/test_documented_commands.py",
    "curl 'localhost:5001/monitor?uuid=my-task&": "tests/system/test_documented_scripts.py",
    "curl -G localhost:5001/monitor -": "tests/system/test_documented_scripts.py",
    "curl -sG localhost:5001/monitor -": "tests/system/test_documented_scripts.py",
    "jq -r '.tasks[] |": "tests/system/test_documented_scripts.py",
    '--data-urlencode since="$(date': "tests/system/test_documented_scripts.py",
    '--data-urlencode until="$(date': "tests/system/test_documented_scripts.py",
    "curl 'localhost:5001/monitor/task_uuid/my-task?wait=60'": "tests/system/test_documented_scripts.py",
    "curl -X POST": "tests/system/test_documented_commands.py",
    "curl localhost:5001/monitor/cancel": "tests/system/test_documented_commands.py",
    "curl localhost:5001/monitor/task_uuid/align-17/resubmit": "tests/system/test_documented_commands.py",
    "openapi-python-client generate": "tests/system/test_generated_client.py",
    "python -m benchmarks.submit": "tests/system/test_benchmarks.py",
    "python -m benchmarks.report": "tests/system/test_benchmarks.py",
    "python -m tests.support.chaos": "tests/system/test_chaos.py",
}
NOT_EXECUTED = {  # how a command begins, and why no test executes it
    "make check": "runs the tests themselves",
    "make benchmarks": "takes a quarter of an hour; tests/system/test_benchmarks.py runs its parts",
    "NOTIFICATIONS_NTFY_URL=https://ntfy.sh .venv/bin/flask": "needs the code that its page adds",
    "python3 -m venv .venv": "makes an environment; the tests have one already",
    ".venv/bin/pip install -r requirements.txt": "installs what the tests have already",
    "cp .env.example .env": "would replace the settings of a developer",
    "cd docker": "needs a Docker engine",
    "docker ": "needs a Docker engine",
    "systemctl ": "needs systemd",
    "rm -f slurm-proxy.sqlite3-": "belongs to a restore between two commands of systemctl",
    "cp /var/backups/slurm-proxy.copy": "belongs to a restore between two commands of systemctl",
    "wget -O- --content-on-error 127.0.0.1:5001/monitor/": "is a GET; the tutorial has the same by curl",
    "wget -O- --content-on-error --method=POST": "is a cancellation; its how-to has the same by curl",
    "curl -u pipeline": "needs a Keycloak",
    "curl -H": "is a fragment, without a body",
    "wget -O- --content-on-error --header": "is a fragment, without a body",
    "curl --retry": "is a fragment, without a body and an address",
    "pip install openapi-python-client": "is installed with the requirements of the tests",
    "python -m benchmarks.": "measures for minutes, on a quiet machine",
}


def documented_commands() -> list[str]:
    """Return the commands of all pages, without those of the tutorial, which one test runs as a whole."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"^ *```(sh|console)\n(.*?)^ *```$", page.read_text(), re.S | re.M)
        for language, block in blocks if page.name != "first-task.md" else []:
            lines = [line.strip() for line in block.splitlines() if line.strip()]
            if language == "console":
                lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += lines
    return found


def test_every_documented_command_is_executed_or_listed() -> None:
    known = (*EXECUTED, *NOT_EXECUTED)
    assert [line for line in documented_commands() if not line.startswith(known)] == []
    assert [
        start for start in known if not any(line.startswith(start) for line in documented_commands())
    ] == []
    assert [test for test in EXECUTED.values() if not (ROOT / test).exists()] == []


def test_no_block_hides_commands_from_the_list() -> None:
    for page in PAGES:
        for block in re.findall(r"^ *```\n(.*?)^ *```$", page.read_text(), re.S | re.M):
            assert not re.match(r" *(\$ |curl|wget|flask|make|pip|python|docker|cd|sh|sudo) ?", block), block


def test_wget_shows_the_body_of_errors_wherever_it_is_documented() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    assert pages.count("wget -O-") == pages.count("wget -O- --content-on-error") > 0


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 930


@pytest.mark.parametrize("page", ["how-to/authenticate-callers.md", "how-to/deploy-on-a-network.md"])
def test_settings_that_a_page_shows_are_accepted(tmp_path: Path, page: str) -> None:
    base = {
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0",
        "SQLITE_PATH": tmp_path / "store.sqlite3",
    }
    settings = [block for block in blocks(page, "") if re.match(r"[A-Z_]+=", block)]
    assert settings
    for block in settings:
        given = dict(line.split("=", 1) for line in block.splitlines())
        create_app({**base, "ACCESS_METHODS": "keys", **given})


def test_nginx_and_the_unit_fit_the_server() -> None:
    nginx = (DOCS / "how-to/nginx.conf").read_text()
    (text,) = blocks("how-to/deploy-on-a-network.md", "ini")
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    assert f"client_max_body_size {MAX_BODY_BYTES // 2**20}m;" in nginx
    bound = service["Environment"].removeprefix("GUNICORN_BIND=")
    assert f"proxy_pass http://{bound};" in nginx
    assert bound.startswith(f"unix:/run/{service['RuntimeDirectory']}/")
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == f"{service['WorkingDirectory']}/.venv/bin/gunicorn"
    assert arguments == ["-c", "docker/gunicorn.conf.py", "app:create_app()"]
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", nginx)
    defaults = read_settings()
    slurm = defaults.SLURM_REST_READ_TIMEOUT_SECONDS + 2 * defaults.SLURM_REST_CONNECT_TIMEOUT_SECONDS
    assert slurm + 2 * defaults.MONGODB_TIMEOUT_SECONDS == 46
    assert int(seconds) > MAX_WAIT_SECONDS + 46  # a request that waits, and is then answered like any other


if __name__ == "__main__":  # python -m tests.unit.test_docs: the examples, to be copied into the page
    for title, content in EXAMPLES.items():
        sys.stdout.write(f"### {title}\n\n```text\n{shown(content)}```\n\n")
