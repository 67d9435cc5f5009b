"""The files of docker/, as far as they can be tried without an engine; gunicorn is run for real."""

import configparser
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]  # apprise needs it, too

from app.models.record import utc_now
from app.store.sqlite import SqliteStore
from app.version import read_version
from tests.conftest import until
from tests.support.real.processes import answers, free_port
from tests.support.service import ROOT


class Gunicorn:
    """gunicorn with the project's own configuration."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.store = folder / "store.sqlite3"
        self.log = folder / "gunicorn.log"
        environment = {
            "PATH": os.environ["PATH"],
            "GUNICORN_BIND": f"127.0.0.1:{self.port}",
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0",
            "SQLITE_PATH": str(self.store),
            "MONITOR_POLLING_SECONDS": "0.2",
            "MONITOR_LEASE_SECONDS": "3",
            **settings,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def leaders(self) -> list[str]:
        connection = sqlite3.connect(self.store)
        try:
            return [row[0] for row in connection.execute("SELECT owner FROM leases WHERE owner != ''")]
        except sqlite3.OperationalError:  # not made yet
            return []
        finally:
            connection.close()


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Gunicorn]:
    server = Gunicorn(tmp_path)
    until(lambda: answers(server.port), 30, f"gunicorn (see {server.log})")
    yield server
    server.process.kill()
    server.process.wait(10)


def test_one_of_two_workers_leads_and_releases_the_lease_at_a_clean_end(gunicorn: Gunicorn) -> None:
    assert requests.get(f"http://127.0.0.1:{gunicorn.port}/ping", timeout=10).text == "pong"
    until(lambda: len(gunicorn.leaders()) == 1, 20, "a leader")
    until(lambda: gunicorn.log.read_text().count("Booting worker") == 2, 20, "two workers")
    gunicorn.process.send_signal(signal.SIGTERM)
    assert gunicorn.process.wait(30) == 0
    assert gunicorn.leaders() == []


def test_a_killed_worker_is_replaced_by_another_that_polls(gunicorn: Gunicorn) -> None:
    until(lambda: len(gunicorn.leaders()) == 1, 20, "a leader")
    (leader,) = gunicorn.leaders()
    os.kill(int(leader.split(":")[1]), signal.SIGKILL)
    until(
        lambda: "Booting worker" in gunicorn.log.read_text().split(leader.split(":")[1])[-1],
        20,
        "a new worker",
    )
    until(lambda: gunicorn.leaders() not in ([], [leader]), 60, f"a new leader by {utc_now()}")


def test_gunicorn_that_is_stopped_while_its_workers_start_ends_cleanly(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path)
    until(lambda: "Booting worker" in server.log.read_text(), 30, f"a worker (see {server.log})")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_gunicorn_opens_no_control_socket(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    server = Gunicorn(tmp_path, HOME=str(home), XDG_RUNTIME_DIR=str(home))
    try:
        until(lambda: server.log.read_text().count("Booting worker") == 2, 30, "two workers")
        until(lambda: answers(server.port), 30, f"gunicorn (see {server.log})")
        server.process.send_signal(signal.SIGTERM)  # handled after the socket would have been opened
        assert server.process.wait(30) == 0
    finally:
        server.process.kill()
    assert "Control socket" not in server.log.read_text()
    assert list(home.rglob("*")) == []


def test_without_its_database_the_server_ends_with_the_reason(tmp_path: Path) -> None:
    server = Gunicorn(
        tmp_path, MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}/", MONGODB_TIMEOUT_SECONDS="0.5"
    )
    assert server.process.wait(60) != 0
    _, slurm, *said = server.log.read_text().splitlines()  # the first line is gunicorn's
    assert "Slurm cannot be used yet" in slurm
    assert said[0] == " * MongoDB connection failed - is the server running?"
    assert said[1].startswith("Error: MONGODB_URI: MongoDB does not answer: 127.0.0.1:")
    assert len(said) == 2


def test_a_bad_setting_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path, MONITOR_POLLING_SECONDS="soon")
    assert server.process.wait(60) != 0
    (said,) = server.log.read_text().splitlines()
    assert said.startswith("slurm-proxy cannot start: MONITOR_POLLING_SECONDS: ")


def test_the_logs_rotate_as_documented() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "docker/supervisord.conf")
    program = parser["program:slurm-proxy"]
    for stream in ("stdout", "stderr"):
        assert program[f"{stream}_logfile_maxbytes"] == "10MB"
        assert program[f"{stream}_logfile_backups"] == "5"


def copies_of_dockerfile() -> list[tuple[str, str]]:
    """Return the sources and targets of the Dockerfile's COPY lines, those from other stages left out."""
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line]
    return [(source, target) for *sources, target in copies for source in sources]


def test_image_copies_only_what_exists_and_is_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    for source, _ in copies_of_dockerfile():
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_image_has_the_version_of_the_project(tmp_path: Path) -> None:
    for source, target in copies_of_dockerfile():
        if (path := Path(target)).is_relative_to("/opt/slurm-proxy"):
            folder = tmp_path / path.relative_to("/opt/slurm-proxy")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder)
    program = "import app.version; print(app.version.__file__, app.version.read_version())"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == [str(tmp_path / "app/version.py"), read_version()]


def compose_services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker/docker-compose-slurm-proxy.yml").read_text())
    return dict(services["services"])


def test_backups_are_made_in_a_profile_on_a_volume_of_the_services_user() -> None:
    backup = compose_services()["backup"]
    assert backup["profiles"] == ["backup"]
    assert backup["environment"] == compose_services()["slurm-proxy"]["environment"]
    folder = backup["command"][-1]
    assert backup["volumes"] == [f"backups:{folder}"]
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert all(re.search(rf"&& {command} .*{folder}", dockerfile) for command in ("mkdir", "chown"))


def test_the_command_of_the_backup_profile_makes_backups_until_it_is_stopped(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store.sqlite3").prepare()
    program, *arguments, _ = compose_services()["backup"]["command"]
    environment = {
        "PATH": os.environ["PATH"],
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0",
        "SQLITE_PATH": str(tmp_path / "store.sqlite3"),
    }
    folder = tmp_path / "backups"
    folder.mkdir()
    argv = [sys.executable, "-m", program, *arguments, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, env=environment) as process:
        until(lambda: [path.suffix for path in folder.iterdir()] == [".sqlite3"], 30, "a backup")
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
