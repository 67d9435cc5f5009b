"""`flask --app app check` as its operator runs it."""

import base64
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.conftest import Cluster
from tests.support.real.mongod import Mongod
from tests.support.real.processes import free_port
from tests.support.real.smtp import SmtpServer
from tests.support.service import ROOT
from tests.system.test_startup import RUN, start

DEPLOY = ROOT / "docs" / "how-to" / "deploy.md"


def flask(*arguments: str, **settings: str) -> tuple[int, list[str]]:
    """Run one command, and return its exit code and the lines that it prints."""
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **settings}
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout.splitlines()


def good(cluster: Cluster, folder: Path, smtp: SmtpServer) -> dict[str, str]:
    return {
        "SLURM_REST_HOST": cluster.url,
        "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(cluster.key).decode(),
        "SQLITE_PATH": str(folder / "store.sqlite3"),
        "NOTIFICATIONS_SMTP_SERVER": smtp.host,
        "NOTIFICATIONS_SMTP_PORT": str(smtp.port),
        "NOTIFICATIONS_SMTP_SECURITY": "none",
    }


def shown_in_docs(lines: list[str]) -> bool:
    """Return whether the page shows exactly this output, but for versions, addresses and folders."""

    def plain(text: str) -> str:
        text = re.sub(r"https?://[\w.:]+", "<address>", text)
        text = re.sub(r"Slurm \S+ accepts|offers v[\d.]+\S*", "<version>", text)
        text = re.sub(r"[\w.]+:\d+ cannot be used.*\(correct", "<server> cannot be used (correct", text)
        return re.sub(r"/\S+\.sqlite3|(?<=folder )/\S+(?=:)", "<file>", text)

    return plain("\n".join(lines)) in plain(DEPLOY.read_text())


def test_help_lists_the_commands_without_any_setting() -> None:
    status, lines = flask("--help")
    assert status == 0
    names = ["check", "keys", "records"]
    assert [line.split()[0] for line in lines if re.match(rf"  ({'|'.join(names)}) ", line)] == names


def test_a_command_that_needs_settings_names_those_that_are_wrong() -> None:
    assert flask("keys", "list", LOG_LEVEL="LOUD") == (
        2,
        ["Error: LOG_LEVEL: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"],
    )


def test_check_reports_a_store_of_a_newer_release(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    status, lines = flask("check", SQLITE_PATH=str(path))
    assert status == 1
    assert any("FAILED  store: SQLITE_PATH: the store has schema version 99" in line for line in lines)


def test_check_passes_on_a_good_configuration(cluster: Cluster, tmp_path: Path, smtp: SmtpServer) -> None:
    settings = good(cluster, tmp_path, smtp)
    status, lines = flask("check", **settings)
    assert status == 0, lines
    assert [line.split(":")[0] for line in lines] == [
        "ok      settings",
        "ok      slurmrestd",
        "ok      slurmdbd",
        "ok      store",
        "ok      email",
    ]
    assert shown_in_docs(lines), lines
    assert not (tmp_path / "store.sqlite3").exists()
    assert smtp.mails == []
    flask("keys", "list", **settings)
    assert (
        flask("check", **settings)[1][3]
        == f"ok      store: {tmp_path}/store.sqlite3 can be written and has 0 records"
    )
    assert shown_in_docs(flask("check", **settings)[1][3:4])


def test_check_shows_all_faults_at_once(local_cluster: Cluster, tmp_path: Path, smtp: SmtpServer) -> None:
    wrong = {
        "LOG_LEVEL": "LOUD",
        "GUNICORN_WORKERS": "two",
        "SLURM_JWT_HS256_KEY_BASE64": "",
        "SLURM_JWT_HS256_KEY_PATH": str(tmp_path / "jwt_hs256.key"),
        "SQLITE_PATH": str(tmp_path / "none" / "store.sqlite3"),
        "NOTIFICATIONS_SMTP_PORT": str(free_port()),
        "SMTP_USERNAME": "proxy",
    }
    (tmp_path / "jwt_hs256.key").write_bytes(base64.b64encode(local_cluster.key) + b"\n")
    status, lines = flask("check", **{**good(local_cluster, tmp_path, smtp), **wrong})
    assert status == 1
    assert [line.split(":")[0] for line in lines] == [
        "FAILED  settings",
        "FAILED  settings",
        "warning settings",
        "FAILED  slurmrestd",
        "FAILED  store",
        "FAILED  email",
    ]
    assert "set SLURM" not in lines[3]
    assert shown_in_docs(lines), lines


def test_check_does_not_try_slurm_with_an_address_that_is_wrong(tmp_path: Path) -> None:
    status, lines = flask("check", SLURM_REST_HOST="slurm:6820", SQLITE_PATH=str(tmp_path / "x.sqlite3"))
    assert status == 1
    assert lines[:2] == [
        "FAILED  settings: SLURM_REST_HOST: must be http://host:port, https://host:port or unix:///path",
        "FAILED  slurmrestd: not tried, because its settings are wrong (see above)",
    ]


@pytest.mark.parametrize("bind", ["0.0.0.0:5001", "127.0.0.1:5001,[::]:5001", "unix:/run/slurm-proxy/http"])
def test_check_refuses_a_public_address_without_authentication(tmp_path: Path, bind: str) -> None:
    settings = {"SQLITE_PATH": str(tmp_path / "x.sqlite3"), "GUNICORN_BIND": bind}
    lines = flask("check", **settings)[1]
    assert re.match(
        r"FAILED  settings: GUNICORN_BIND: the server would listen on (0\.0\.0\.0|::|unix:/run/\S+), ",
        lines[0],
    )
    assert "settings: every value can be used" in flask("check", ACCESS_METHODS="keys", **settings)[1][0]


def test_check_warns_of_a_socket_folder_that_gunicorn_will_need(tmp_path: Path) -> None:
    lines = flask("check", GUNICORN_BIND=f"unix:{tmp_path}/none/http", ACCESS_METHODS="keys")[1]
    assert lines[:2] == [
        "ok      settings: every value can be used",
        f"warning settings: GUNICORN_BIND: there is no folder {tmp_path}/none: create it, owned by the user"
        " of this service (with RuntimeDirectory systemd creates it at the start)",
    ]


def test_check_and_start_refuse_an_audit_trail_with_the_same_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    faults = {
        f"{folder}/x": f"there is no folder {folder}: create it, owned by the user of this service",
        str(tmp_path): f"{tmp_path} is a folder: name a file in it",
    }
    for path, words in faults.items():
        assert flask("check", AUDIT_LOG_PATH=path)[1][0] == f"FAILED  settings: AUDIT_LOG_PATH: {words}"
        assert start(tmp_path, RUN, AUDIT_LOG_PATH=path).refuses_with(f"AUDIT_LOG_PATH: {words}")


def test_check_shows_no_secret(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "SLURM_REST_HOST": f"http://ann:secret@127.0.0.1:{port}",
        "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(b"secret" * 8).decode(),
        "MONGODB_URI": f"mongodb://ann:secret@127.0.0.1:{port}/",
        "MONGODB_TIMEOUT_SECONDS": "1",
        "NOTIFICATIONS_SMTP_SERVER": "127.0.0.1",
        "NOTIFICATIONS_SMTP_PORT": str(port),
        "NOTIFICATIONS_SMTP_USERNAME": "ann",
        "NOTIFICATIONS_SMTP_PASSWORD": "secret",
    }
    status, lines = flask("check", "--send", "email:bob@example.com", **settings)
    assert status == 1
    assert [line.split(":")[0] for line in lines] == [
        "ok      settings",
        "FAILED  slurmrestd",
        "FAILED  store",
        "FAILED  email",
        "FAILED  message by email",
    ]
    assert not any("secret" in line or settings["SLURM_JWT_HS256_KEY_BASE64"] in line for line in lines)


@pytest.mark.real
def test_check_and_start_tell_how_many_records_the_collection_has(
    local_cluster: Cluster, tmp_path: Path, smtp: SmtpServer, mongod: Mongod
) -> None:
    database = f"check_{uuid.uuid4().hex}"
    settings = {
        **good(local_cluster, tmp_path, smtp),
        "MONGODB_URI": mongod.uri,
        "MONGODB_MONITOR_DB": database,
    }
    place = f"MongoDB {database}.jobs"
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        try:
            lines = flask("check", **settings)[1]
            assert lines[3] == f"ok      store: {place} does not exist yet and will be created"
            assert f"INFO app.startup [-]: {place} was created\n" in start(tmp_path, RUN, **settings).output
            client[database].jobs.insert_many([{"task": {"uuid": str(number)}} for number in range(30)])
            lines = flask("check", **settings)[1]
            assert lines[3] == f"ok      store: {place} can be written and has 30 records"
            assert (
                f"INFO app.startup [-]: {place} has 30 records\n" in start(tmp_path, RUN, **settings).output
            )
        finally:
            client.drop_database(database)


@pytest.mark.real
def test_check_names_a_wrong_password_for_mongodb(
    local_cluster: Cluster, tmp_path: Path, smtp: SmtpServer, mongod: Mongod
) -> None:
    settings = good(local_cluster, tmp_path, smtp)
    uri = mongod.uri.replace("mongodb://", "mongodb://ann:secret@", 1)
    status, lines = flask("check", **settings, MONGODB_URI=uri)
    assert status == 1
    assert lines[3] == (
        "FAILED  store: MONGODB_URI: MongoDB refuses the login: correct user, password and authSource"
    )


@pytest.mark.real
def test_check_reports_a_slurmdbd_that_is_down(
    distribution_cluster: Cluster, tmp_path: Path, smtp: SmtpServer
) -> None:
    assert distribution_cluster.real is not None
    distribution_cluster.real.stop_daemon("slurmdbd")
    try:
        status, lines = flask("check", **good(distribution_cluster, tmp_path, smtp))
    finally:
        distribution_cluster.real.start_daemon("slurmdbd")
    assert status == 1
    assert lines[2] == "FAILED  slurmdbd: slurmdbd does not answer (Unable to connect to database): start it"


def test_check_sends_a_test_message(local_cluster: Cluster, tmp_path: Path, smtp: SmtpServer) -> None:
    settings = good(local_cluster, tmp_path, smtp)
    status, lines = flask("check", "--send", "email:bob@example.com", **settings)
    assert (status, lines[-1]) == (0, "ok      message by email: it was sent to bob@example.com")
    (mail,) = smtp.mails
    assert mail.recipients == ["bob@example.com"]
    assert mail.message["Subject"] == "A test message of slurm-proxy"
    assert "flask --app app check --send" in mail.text()


@pytest.mark.parametrize(
    ("send", "line"),
    [
        ("pigeon:bob", "FAILED  message: pigeon is not a method: --send takes one of email, gmail, slack"),
        ("slack:#jobs", "FAILED  message by slack: the method is not configured (see .env.example)"),
        ("email:", "FAILED  message by email: sender: "),
        (
            "email:bob@refused.example.com",
            "FAILED  message by email: the mail server refuses the message: 550 ",
        ),
        ("test", "ok      message by test: it was sent"),
    ],
)
def test_check_says_why_a_test_message_was_not_sent(
    local_cluster: Cluster, tmp_path: Path, smtp: SmtpServer, send: str, line: str
) -> None:
    smtp.answers["bob@refused.example.com"] = "550 no such user here"
    status, lines = flask("check", "--send", send, **good(local_cluster, tmp_path, smtp))
    assert lines[-1].startswith(line)
    assert status == (0 if line.startswith("ok") else 1)
