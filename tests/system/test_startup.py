"""The errors of a server that starts with a mistake in its settings."""

import base64
import contextlib
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from app.store.schema_version import SCHEMA_VERSION
from app.version import read_version
from tests.conftest import Cluster, until
from tests.support.real.certificates import server_context
from tests.support.real.mongod import Mongod
from tests.support.real.processes import free_port
from tests.support.real.scripted import ScriptedServer
from tests.support.real.smtp import SmtpServer
from tests.support.service import ROOT, Service

KEY = base64.b64encode(b"a key for these tests, of 32 bytes").decode()
RUN = ["run.py"]
GUNICORN = ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
# For root no file is read-only; without these capabilities the mode of a file counts.
WITHOUT_PRIVILEGES = ("setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override")
SERVERS = [pytest.param(RUN, id="run.py"), pytest.param(GUNICORN, id="gunicorn")]


@dataclass(frozen=True)
class Start:
    """How a server started: `status` is None if it serves."""

    status: int | None
    output: str
    seconds: float

    def refuses_with(self, sentence: str) -> bool:
        """Return whether the server ended with exactly this sentence for its operator."""
        lines = [line for line in self.output.splitlines() if "slurm-proxy cannot start: " in line]
        assert "Traceback" not in self.output
        assert lines == [f"slurm-proxy cannot start: {sentence}"], self.output
        return self.status not in (None, 0)

    def warns_with(self, sentence: str) -> bool:
        """Return whether the server serves, and has logged exactly this sentence."""
        found = re.findall(r"WARNING app\.startup \[-\]: (.*)", self.output)
        assert "Traceback" not in self.output
        assert found == [sentence], self.output
        return self.status is None


def start(folder: Path, argv: list[str], **settings: str) -> Start:
    """Start a server in the project's folder, and end it once it serves."""
    return start_in(ROOT, folder, argv, settings)


def start_in(
    project: Path, folder: Path, argv: list[str], settings: Mapping[str, str], prefix: tuple[str, ...] = ()
) -> Start:
    """Start a server in the folder `project`, and end it once it serves."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLASK_APP_PORT": "0",
        "GUNICORN_BIND": f"127.0.0.1:{free_port()}",
        "SLURM_REST_HOST": f"http://127.0.0.1:{free_port()}",
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "SQLITE_PATH": str(folder / "store.sqlite3"),
        **settings,
    }
    output = folder / "output"
    began = time.monotonic()
    with output.open("w") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, *argv],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        serves = re.compile("slurm-proxy listens on|Listening at|Running on")
        until(lambda: process.poll() is not None or serves.search(output.read_text()), 60, "the start")
        return Start(process.poll(), output.read_text(), time.monotonic() - began)
    finally:
        process.terminate()
        process.wait(30)


def slurm(cluster: Cluster, **settings: str) -> Mapping[str, str]:
    return {"SLURM_REST_HOST": cluster.url, "SLURM_JWT_HS256_KEY_BASE64": "", **settings}


# --- the key --------------------------------------------------------------------------------------


OLDER_RECORD = {
    "task": {"uuid": "1"},
    "slurm_job_id": 7,
    "slurm_username": "ann",
    "slurm_job_state": "RUNNING",
}
WRONG_KEYS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another key": (
        lambda key: bytes(reversed(key)),
        "Slurm accepts no token of this key: copy the file that jwt_key in slurm.conf names, byte by byte"
        " (if it is the same, this host's clock is more than a day behind)",
    ),
    "in base64": (
        lambda key: base64.b64encode(key) + b"\n",
        "the file holds the key in base64: name the file by SLURM_JWT_HS256_KEY_BASE64_FILE instead",
    ),
    "with a newline": (
        lambda key: key + b"\n",
        "it ends with a newline that the cluster's key does not have: remove the newline",
    ),
}


@pytest.mark.timed
@pytest.mark.parametrize("argv", SERVERS)
@pytest.mark.parametrize("kind", WRONG_KEYS)
def test_a_key_file_that_slurm_does_not_take_stops_the_start(
    tmp_path: Path, cluster: Cluster, argv: list[str], kind: str
) -> None:
    change, sentence = WRONG_KEYS[kind]
    path = tmp_path / "jwt_hs256.key"
    path.write_bytes(change(cluster.key))
    started = start(tmp_path, argv, **slurm(cluster, SLURM_JWT_HS256_KEY_PATH=str(path)))
    assert started.refuses_with(f"SLURM_JWT_HS256_KEY_PATH: {sentence}")
    assert started.seconds < 8


@pytest.mark.real
@pytest.mark.parametrize("argv", SERVERS)
def test_a_start_that_slurm_settings_stop_leaves_the_store_alone(
    tmp_path: Path, cluster: Cluster, mongod: Mongod, argv: list[str]
) -> None:
    database = f"start_{uuid.uuid4().hex}"
    settings = {"MONGODB_URI": mongod.uri, "MONGODB_MONITOR_DB": database}
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database].jobs.insert_one(dict(OLDER_RECORD))
        try:
            assert start(tmp_path, argv, SLURM_REST_HOST=cluster.url, **settings).status not in (None, 0)
            assert client[database].jobs.find_one({}, {"_id": 0}) == OLDER_RECORD
            assert list(client[database].jobs.index_information()) == ["_id_"]
        finally:
            client.drop_database(database)
    assert start(tmp_path, argv, SLURM_REST_HOST=cluster.url).status not in (None, 0)
    assert not (tmp_path / "store.sqlite3").exists()


def test_a_key_that_was_encoded_twice_stops_the_start(tmp_path: Path, cluster: Cluster) -> None:
    twice = base64.b64encode(base64.b64encode(cluster.key)).decode()
    settings = {**slurm(cluster), "SLURM_JWT_HS256_KEY_BASE64": twice}
    assert start(tmp_path, RUN, **settings).refuses_with(
        "SLURM_JWT_HS256_KEY_BASE64: it is encoded twice: encode the key's file once, with base64 -w0"
    )


@pytest.mark.real
def test_a_wrong_key_is_warned_of_where_an_outage_cannot_be_ruled_out(
    tmp_path: Path, distribution_cluster: Cluster
) -> None:
    """slurmctld of 22.05 gives no reason, and slurmdbd, which would, is down."""
    assert distribution_cluster.real is not None
    if not distribution_cluster.real.version.startswith("22.05"):
        pytest.skip("newer releases give the reason themselves")
    distribution_cluster.real.stop_daemon("slurmdbd")
    try:
        started = start(tmp_path, RUN, SLURM_REST_HOST=distribution_cluster.url)
    finally:
        distribution_cluster.real.start_daemon("slurmdbd")
    assert started.warns_with(
        f"Slurm cannot be used yet, and is tried again: slurmctld refuses the requests of"
        f" {distribution_cluster.url} (no reason given): it is down, or SLURM_JWT_HS256_KEY_PATH or"
        " SLURM_JWT_HS256_KEY_BASE64 is not the cluster's key"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_an_empty_key_file_stops_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "jwt_hs256.key"
    path.touch()
    started = start(tmp_path, argv, SLURM_JWT_HS256_KEY_BASE64="", SLURM_JWT_HS256_KEY_PATH=str(path))
    assert started.refuses_with(
        f"SLURM_JWT_HS256_KEY_PATH: {path} is empty; name a copy of the cluster's jwt_hs256.key that this"
        " user can read"
    )


def test_the_right_key_starts_the_server_without_a_warning(tmp_path: Path, cluster: Cluster) -> None:
    path = tmp_path / "jwt_hs256.key"
    path.write_bytes(cluster.key)
    started = start(tmp_path, RUN, **slurm(cluster, SLURM_JWT_HS256_KEY_PATH=str(path)))
    assert started.status is None
    assert "WARNING" not in started.output


# --- the address ----------------------------------------------------------------------------------


def with_key(cluster: Cluster, address: str) -> dict[str, str]:
    return {
        "SLURM_REST_HOST": address,
        "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(cluster.key).decode(),
    }


@pytest.mark.parametrize("argv", SERVERS)
def test_a_path_in_the_address_stops_the_start(tmp_path: Path, cluster: Cluster, argv: list[str]) -> None:
    address = f"{cluster.url}/slurm/v0.0.42"
    assert start(tmp_path, argv, **with_key(cluster, address)).refuses_with(
        f"SLURM_REST_HOST: there is no slurmrestd at {address}: remove /slurm/v0.0.42 from it"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_https_to_an_http_port_stops_the_start(tmp_path: Path, cluster: Cluster, argv: list[str]) -> None:
    address = cluster.url.replace("http", "https", 1)
    assert start(tmp_path, argv, **with_key(cluster, address)).refuses_with(
        f"SLURM_REST_HOST: {address} does not use TLS: set it to {cluster.url}"
    )


class TlsServer(ScriptedServer):
    """A server that accepts only TLS, and sends nothing; it answers plain HTTP with `page`, if given."""

    def __init__(self, folder: Path, page: bytes = b"") -> None:
        super().__init__()
        self._context = server_context(folder / "server.pem", folder / "server.key")
        self._page = page

    def talk(self, client: socket.socket) -> None:
        if self._page and client.recv(1, socket.MSG_PEEK) == b"G":
            client.recv(65536)
            self.say(client, self._page)
            return
        with suppress(ssl.SSLError), self._context.wrap_socket(client, server_side=True) as tls:
            tls.recv(1)


# As nginx 1.22 has it.
NGINX_PAGE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 70\r\nConnection: close\r\n\r\n"
    b"<center>The plain HTTP request was sent to HTTPS port</center>\r\n<hr>\r\n"
)


@pytest.mark.parametrize("page", [pytest.param(b"", id="closes"), pytest.param(NGINX_PAGE, id="nginx")])
@pytest.mark.parametrize("argv", SERVERS)
def test_http_to_an_https_port_stops_the_start(tmp_path: Path, argv: list[str], page: bytes) -> None:
    with TlsServer(tmp_path, page) as server:
        address = f"127.0.0.1:{server.port}"
        started = start(tmp_path, argv, SLURM_REST_HOST=f"http://ann:secret@{address}")
    assert started.refuses_with(
        f"SLURM_REST_HOST: http://{address} accepts only TLS: set it to https://{address}"
    )
    assert "secret" not in started.output


def test_a_certificate_of_an_unknown_authority_stops_the_start(tmp_path: Path) -> None:
    with TlsServer(tmp_path) as server:
        address = f"https://127.0.0.1:{server.port}"
        started = start(tmp_path, RUN, SLURM_REST_HOST=address)
    assert started.refuses_with(
        f"SLURM_REST_CA_PATH: the certificate of {address} is not trusted (self-signed certificate):"
        " name the authority that issued it"
    )


@pytest.mark.timed
@pytest.mark.parametrize("argv", SERVERS)
def test_start_goes_on_with_a_warning_if_the_port_is_closed(tmp_path: Path, argv: list[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = start(tmp_path, argv, SLURM_REST_HOST=f"http://ann:secret@{address}")
    assert started.warns_with(
        f"Slurm cannot be used yet, and is tried again: SLURM_REST_HOST: http://{address}:"
        " no server listens there: start slurmrestd, or correct the address"
    )
    assert "secret" not in started.output
    assert started.seconds < 8


@pytest.mark.real
@pytest.mark.parametrize("argv", SERVERS)
@pytest.mark.parametrize("daemon", ["slurmctld", "slurmdbd"])
def test_start_warns_that_the_port_is_that_of_another_slurm_daemon(
    tmp_path: Path, distribution_cluster: Cluster, argv: list[str], daemon: str
) -> None:
    assert distribution_cluster.real is not None
    address = f"http://127.0.0.1:{distribution_cluster.real.port(daemon)}"
    assert start(tmp_path, argv, **with_key(distribution_cluster, address)).warns_with(
        f"Slurm cannot be used yet, and is tried again: SLURM_REST_HOST: {address}: the server there"
        " closes the connection: set it to the port of slurmrestd, not of slurmctld"
    )


def test_another_web_server_stops_the_start(tmp_path: Path) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"

    def talk(server: ScriptedServer, client: socket.socket) -> None:
        while client.recv(65536):
            server.say(client, page)

    with ScriptedServer(talk) as server:
        address = f"http://127.0.0.1:{server.port}"
        started = start(tmp_path, RUN, SLURM_REST_HOST=address)
    assert started.refuses_with(
        f"SLURM_REST_HOST: the server at {address} is not slurmrestd (status 200, not JSON:"
        " <html></html>): set it to the address and port of slurmrestd"
    )


@pytest.mark.timed
@pytest.mark.real
def test_a_server_starts_while_slurmctld_is_down_and_heals(
    tmp_path: Path, distribution_cluster: Cluster, smtp: SmtpServer
) -> None:
    real = distribution_cluster.real
    assert real is not None
    with Service(tmp_path, distribution_cluster, smtp) as service:
        real.stop_daemon("slurmctld")
        try:
            began = time.monotonic()
            service.start()
            assert time.monotonic() - began < 12
            assert (
                "Slurm cannot be used yet, and is tried again:"
                f" SLURM_REST_HOST: {distribution_cluster.url}: there is no answer in time:"
                " slurmctld or the network to slurmrestd may be down"
            ) in service.log.read_text()
        finally:
            real.start_daemon("slurmctld")
        until(lambda: service.answer("/slurm/diag").status_code == 200, 90, "Slurm's answer")


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", SERVERS)
def test_a_store_in_a_missing_folder_stops_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "none" / "store.sqlite3"
    assert start(tmp_path, argv, SQLITE_PATH=str(path)).refuses_with(
        f"SQLITE_PATH: there is no folder {path.parent}: create it, owned by the user of this service"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are some notes, and no database of any kind.\n" * 100)
    assert start(tmp_path, argv, SQLITE_PATH=str(path)).refuses_with(
        f"SQLITE_PATH: {path} is no SQLite database: name another file, or move this one away"
    )
    assert path.read_text().startswith("These are some notes")


def test_a_store_that_is_a_folder_stops_the_start(tmp_path: Path) -> None:
    assert start(tmp_path, RUN, SQLITE_PATH=str(tmp_path)).refuses_with(
        f"SQLITE_PATH: {tmp_path} is a folder: name a file in it"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_a_store_of_a_newer_release_stops_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "store.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert start(tmp_path, argv, SQLITE_PATH=str(path)).refuses_with(
        f"SQLITE_PATH: the store has schema version 99, and slurm-proxy {read_version()} knows versions up to"
        f" {SCHEMA_VERSION}: run the newer release again, or restore a backup from before the upgrade"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_a_store_that_cannot_be_written_stops_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "store.sqlite3"
    assert start(tmp_path, argv, SQLITE_PATH=str(path)).status is None
    path.chmod(0o444)
    prefix = WITHOUT_PRIVILEGES if os.geteuid() == 0 else ()
    started = start_in(ROOT, tmp_path, argv, {"SQLITE_PATH": str(path)}, prefix)
    assert started.refuses_with(
        f"SQLITE_PATH: {path} cannot be written: give the file and its folder to the user of this service"
    )


@pytest.mark.real
@pytest.mark.parametrize("argv", SERVERS)
def test_a_wrong_password_for_mongodb_stops_the_start(
    tmp_path: Path, mongod: Mongod, argv: list[str]
) -> None:
    uri = mongod.uri.replace("mongodb://", "mongodb://ann:secret@", 1)
    started = start(tmp_path, argv, MONGODB_URI=uri)
    assert started.refuses_with(
        "MONGODB_URI: MongoDB refuses the login: correct user, password and authSource"
    )
    assert "is the server running?" not in started.output
    assert "secret" not in started.output


@pytest.mark.parametrize("argv", SERVERS)
def test_a_mongodb_that_cannot_be_reached_ends_the_start(tmp_path: Path, argv: list[str]) -> None:
    port = free_port()
    uri = f"mongodb://ann:secret@127.0.0.1:{port}/"
    started = start(tmp_path, argv, MONGODB_URI=uri, MONGODB_TIMEOUT_SECONDS="1")
    assert started.status == 3
    assert (
        " * MongoDB connection failed - is the server running?\n"
        f"Error: MONGODB_URI: MongoDB does not answer: 127.0.0.1:{port}: [Errno 111] Connection refused:"
        " start it, or correct the address\n"
    ) in started.output
    assert "secret" not in started.output


@pytest.mark.parametrize(
    "password",
    [
        "p/secret",
        "a@secret",
        "top@secret/def",
        "12345/secret",
        "p@ss/secret",
        "a?secret",
        "a#b@secret",
        "%secret",
    ],
)
def test_a_mongodb_address_that_cannot_be_read_is_not_shown(tmp_path: Path, password: str) -> None:
    uri = f"mongodb://ann:{password}@127.0.0.1:{free_port()}/"
    started = start(tmp_path, RUN, MONGODB_URI=uri, MONGODB_TIMEOUT_SECONDS="1")
    assert "secret" not in started.output
    assert started.refuses_with(
        "MONGODB_URI: it cannot be read: percent-encode special characters in its user and password"
    )


# --- names and values -----------------------------------------------------------------------------


def test_gunicorn_refuses_a_number_of_workers_that_is_none(tmp_path: Path) -> None:
    assert start(tmp_path, GUNICORN, GUNICORN_WORKERS="two").refuses_with(
        "GUNICORN_WORKERS: must be a whole number"
    )


@pytest.mark.parametrize("bind", ["5001", "127.0.0.1", "localhost:50001x", "127.0.0.1:70000", "unix:"])
def test_gunicorn_refuses_an_address_of_another_form(tmp_path: Path, bind: str) -> None:
    assert start(tmp_path, GUNICORN, GUNICORN_BIND=f"127.0.0.1:{free_port()},{bind}").refuses_with(
        f'GUNICORN_BIND: must be host:port or unix:/path, not "{bind}"'
    )


def test_gunicorn_refuses_a_socket_in_a_missing_folder(tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/none/http"
    assert start(tmp_path, GUNICORN, GUNICORN_BIND=bind, ACCESS_METHODS="keys").refuses_with(
        f"GUNICORN_BIND: there is no folder {tmp_path}/none: create it, owned by the user of this service"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_a_server_names_all_wrong_values_at_once(tmp_path: Path, argv: list[str]) -> None:
    assert start(tmp_path, argv, LOG_FORMAT="xml", FLASK_APP_PORT="http").refuses_with(
        "FLASK_APP_PORT: must be a whole number; LOG_FORMAT: must be 'text' or 'json'"
    )


@pytest.mark.parametrize("argv", SERVERS)
def test_a_name_that_lacks_its_prefix_is_warned_of(
    tmp_path: Path, local_cluster: Cluster, argv: list[str]
) -> None:
    settings = with_key(local_cluster, local_cluster.url)
    assert start(tmp_path, argv, SMTP_SECURITY="none", **settings).warns_with(
        "SMTP_SECURITY is no setting: did you mean NOTIFICATIONS_SMTP_SECURITY?"
    )


# --- .env -----------------------------------------------------------------------------------------


FLASK = ["-m", "flask", "--app", "app"]
EVERY_START = [
    *SERVERS,
    pytest.param([*FLASK, "run", "--port", "0"], id="flask run"),
    pytest.param([*FLASK, "keys", "list"], id="flask keys"),
    pytest.param([*FLASK, "check"], id="flask check"),
]


@pytest.mark.parametrize("argv", EVERY_START)
@pytest.mark.parametrize("line", ["ACCESS_METHODS: keys", 'ACCESS_METHODS="keys', "ACCESS_METHODS"])
def test_every_start_refuses_an_environment_file_with_an_unreadable_line(
    tmp_path: Path, argv: list[str], line: str
) -> None:
    (tmp_path / "app").symlink_to(ROOT / "app")
    (tmp_path / "docker").mkdir()
    for name in ("run.py", "pyproject.toml", "docker/gunicorn.conf.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".env").write_text(f"# who may call\n{line}\nLOG_LEVEL=INFO\n")
    started = start_in(tmp_path, tmp_path, argv, {})
    sentence = f"{tmp_path}/.env: line 2 cannot be read; it must be NAME=value"
    if argv[:2] != FLASK[:2]:
        assert started.refuses_with(sentence)
    elif "check" in argv:
        assert started.status == 1
        assert f"\nFAILED  settings: {sentence}\n" in f"\n{started.output}"
        assert "ok      settings" not in started.output
    else:
        assert started.status not in (None, 0)
        assert f"Error: {sentence}" in started.output
    assert "Traceback" not in started.output
