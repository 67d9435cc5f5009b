"""Servers and commands check the settings of authentication at their start."""

import contextlib
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import until
from tests.support.access import SETTINGS, entries
from tests.support.real.processes import free_port
from tests.support.service import ROOT


def test_the_command_line_says_in_a_line_which_setting_is_wrong(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "flask", "--app", "app", "keys", "list"]
    environment = {"PATH": "/bin", "ACCESS_METHODS": "keys", "SQLITE_PATH": str(tmp_path / "store")}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: SLURM_REST_HOST must be set")
    assert done.stderr.count("\n") == 1


def started(folder: Path, argv: list[str], **settings: str) -> tuple[int | None, str]:
    """How a server ended, None if it began to serve instead, and what it said."""
    environment = {**SETTINGS, "SQLITE_PATH": str(folder / "store.sqlite3"), **settings}
    said = folder / "said"
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        serves = re.compile("proxy listens on|Listening at")
        until(lambda: process.poll() is not None or serves.search(said.read_text()), 60, "the start")
        return process.poll(), said.read_text()
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "cluster.example"])
def test_server_without_authentication_does_not_listen_elsewhere(tmp_path: Path, host: str) -> None:
    status, said = started(tmp_path, ["run.py"], FLASK_APP_HOST=host)
    assert status == 2
    assert re.fullmatch(
        rf"slurm-proxy cannot start: FLASK_APP_HOST: the server would listen on {re.escape(host)},"
        r" .*ACCESS_METHODS=keys.*\n",
        said,
    )


def test_gunicorn_without_authentication_does_not_listen_elsewhere(tmp_path: Path) -> None:
    argv = ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
    binds = (
        f"0.0.0.0:{free_port()}",
        f"127.0.0.1:{free_port()},[::]:{free_port()}",
        f"unix:{tmp_path}/socket",
    )
    for bind in binds:
        status, said = started(tmp_path, argv, GUNICORN_BIND=bind)
        assert status == 1, said
    for bind in binds:  # which the configuration file knows nothing of
        status, said = started(tmp_path, [*argv[:4], "--bind", bind.split(",")[-1], argv[4]])
        assert status == 1
        assert "slurm-proxy cannot start: GUNICORN_BIND: the server would listen on" in said
        assert "ACCESS_METHODS=keys" in said


@pytest.mark.parametrize(
    "argv", [["run.py"], ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]]
)
def test_a_trail_that_cannot_be_written_ends_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "none" / "audit.jsonl"
    bind = f"127.0.0.1:{free_port()}"
    status, said = started(tmp_path, argv, AUDIT_LOG_PATH=str(path), GUNICORN_BIND=bind)
    assert status in (1, 2), said
    assert "slurm-proxy cannot start: AUDIT_LOG_PATH: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ACCESS_METHODS": "keys"}, "INFO app.startup [-]: callers authenticate by: keys\n"),
        ({"ACCESS_WITHOUT_PROOF": "true"}, "WARNING app.startup [-]: there is no authentication"),
    ],
)
def test_server_listens_elsewhere_with_authentication_or_the_risk_accepted(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    status, said = started(tmp_path, ["run.py"], FLASK_APP_HOST="0.0.0.0", **settings)
    assert status is None, said
    assert "slurm-proxy listens on" in said
    assert words in said


@pytest.mark.parametrize(
    "argv", [["run.py"], ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]]
)
def test_a_misspelt_setting_is_warned_of_by_every_server(tmp_path: Path, argv: list[str]) -> None:
    """Above all this setting: an operator who sets it believes that callers must authenticate."""
    bind = f"127.0.0.1:{free_port()}"
    status, said = started(tmp_path, argv, ACCESS_METHOD="keys", GUNICORN_BIND=bind)
    assert status is None, said
    words = "WARNING app.startup [-]: ACCESS_METHOD is no setting: did you mean ACCESS_METHODS?\n"
    assert said.count(words) == 1
    words = "there is no authentication: only processes of this user and of root on this machine are served\n"
    assert said.count(words) == 1


def test_a_server_warns_once_of_each_name_of_the_older_server(tmp_path: Path) -> None:
    status, said = started(
        tmp_path, ["run.py"], SMTP_SERVER="mail", SLACK_CHANNEL="a", NOTIFICATIONS_SLACK_CHANNEL="b"
    )
    assert status is None, said
    for words in (
        "SMTP_SERVER is the older server's name for NOTIFICATIONS_SMTP_SERVER: rename it",
        "SLACK_CHANNEL is ignored, because NOTIFICATIONS_SLACK_CHANNEL is set: remove it",
    ):
        assert said.count(f"WARNING app.startup [-]: {words}") == 1


def test_behind_a_unix_socket_the_trail_has_the_address_of_the_client(tmp_path: Path) -> None:
    """Also where the client of the socket calls itself by an address."""
    trail = tmp_path / "audit.jsonl"
    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
    settings = {
        "ACCESS_METHODS": "keys",
        "ACCESS_TRUSTED_PROXIES": "unix",
        "AUDIT_LOG_PATH": str(trail),
        "GUNICORN_BIND": f"unix:{tmp_path}/socket",
        "GUNICORN_WORKERS": "1",
        "SQLITE_PATH": str(tmp_path / "store.sqlite3"),
    }
    with (tmp_path / "said").open("w") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env={**SETTINGS, **settings}, stdout=log, stderr=log)
    try:
        until(lambda: "Listening at" in (tmp_path / "said").read_text(), 60, "the start")
        for forwarded in ("X-Forwarded-For: 192.0.2.7\r\n", ""):
            with socket.socket(socket.AF_UNIX) as client, contextlib.chdir(tmp_path):
                client.bind(f"10.0.0.{len(forwarded)}")
                client.connect("socket")
                client.sendall(
                    f"GET /slurm/ping HTTP/1.1\r\nHost: x\r\n{forwarded}Connection: close\r\n\r\n".encode()
                )
                assert b" 401 " in client.recv(65536)
        until(lambda: trail.read_text().count("\n") == 2, 10, "both lines")
    finally:
        process.terminate()
        process.wait(30)
    assert [entry["address"] for entry in entries(trail)] == ["192.0.2.7", "-"]


def test_the_command_line_writes_to_the_configured_trail(tmp_path: Path) -> None:
    def run(path: Path) -> subprocess.CompletedProcess[str]:
        environment = {**SETTINGS, "SQLITE_PATH": str(tmp_path / "store"), "AUDIT_LOG_PATH": str(path)}
        argv = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "ci", "--any-user"]
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    failed = run(tmp_path / "none" / "audit.jsonl")
    assert failed.returncode == 1
    assert failed.stderr == (
        f"Error: AUDIT_LOG_PATH: there is no folder {tmp_path}/none: create it, owned by the user of this"
        " service\n"
    )
    assert run(tmp_path / "audit.jsonl").returncode == 0, "no key was made before"
    (entry,) = entries(tmp_path / "audit.jsonl")
    assert (entry["action"], entry["grant"]) == ("keys create", "cancel read submit for any user")
