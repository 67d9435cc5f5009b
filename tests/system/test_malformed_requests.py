"""Requests that are not valid HTTP: both servers answer them with JSON, and log nothing of them."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from app.constants import MAX_BODY_BYTES
from app.errors import StoreUnavailable
from app.logs import _traceback_lines
from tests.conftest import until
from tests.support.tasks import new_uuid
from tests.system.test_slow_clients import COMMANDS, Server, request_head, rest_of

KEY = "sp_0123456789ab_a-key-that-nobody-may-read-in-a-log"
BODY = b'{"task":{"note":"%s"}}' % KEY.encode()


def get(*headers: str) -> bytes:
    return request_head("GET", "/ping", *headers) + b"\r\n"


def post(*headers: str, body: bytes = BODY) -> bytes:
    return request_head("POST", "/submit", *headers) + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


# What both servers refuse, by the status of their answer.
REFUSED_BY_BOTH = {
    "a key as the first line": (400, f"{KEY}\r\nHost: localhost\r\n\r\n".encode()),
    "a key as the method": (400, f"{KEY} /ping HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    "a key as the version": (400, f"GET /ping {KEY}\r\nHost: localhost\r\n\r\n".encode()),
    "a blank in the path": (400, f"GET /ping?{KEY} x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    "an unknown version": (400, f"GET /ping?{KEY} HTTP/9.9\r\nHost: localhost\r\n\r\n".encode()),
    "a path that is no URL": (400, f"GET http://[{KEY}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    "TLS to a port without TLS": (400, b"\x16\x03\x01\x02\x00\x01" + KEY.encode() + b"\r\n\r\n"),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + KEY.encode()),
    "too long a path": (414, f"GET /{KEY}{'x' * 70_000} HTTP/1.1\r\n\r\n".encode()),
    "a path that is a little too long": (414, f"GET /{KEY}{'x' * 32_768} HTTP/1.1\r\n\r\n".encode()),
    "too many headers": (431, get(*[f"X-{number}: {KEY}" for number in range(300)])),
    "a key as the length": (400, post(f"Content-Length: {KEY}")),
    "a length of too many digits": (400, post(f"Content-Length: {'9' * 5000}")),
    "too large a length": (400, post("Content-Length: 1000")),
    "a key as the size of a chunk": (400, chunked(KEY.encode() + b"\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "a chunk without a size": (400, chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "a negative size": (400, chunked(b"-5\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "a chunk that goes on": (400, chunked(b"5\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "a chunk that is cut off": (400, chunked(b"1000\r\n" + BODY)),
    "a broken body for a route that reads none": (
        400,
        request_head("POST", "/notifications/retry", "Transfer-Encoding: chunked")
        + f"\r\n{KEY}\r\n\r\n".encode(),
    ),
}
# What only gunicorn refuses: the development server's library is more lenient.
REFUSED_BY_GUNICORN = {
    "no colon": (400, get(f"Authorization Bearer {KEY}")),
    "a folded header": (400, get("Authorization:", f" Bearer {KEY}")),
    "a key on the next line": (400, get("Authorization: Bearer", KEY)),
    "a blank before the colon": (400, get(f"Authorization : Bearer {KEY}")),
    "a blank in a name": (400, get(f"Bearer {KEY}: x")),
    "a control character": (400, get(f"Authorization: Bearer {KEY}\x01")),
    "bare line feeds": (400, f"GET /ping HTTP/1.1\nAuthorization: Bearer {KEY}\n\n".encode()),
    "a path that is not ASCII": (400, f"GET /ping?{KEY}\xff HTTP/1.1\r\n\r\n".encode("latin-1")),
    "an unknown expectation": (417, get(f"Expect: {KEY}")),
    "an unknown transfer coding": (501, post(f"Transfer-Encoding: {KEY}")),
    "two lengths": (400, post("Content-Length: 5", "Content-Length: 6")),
    "a length and chunks": (400, post("Content-Length: 5", "Transfer-Encoding: chunked")),
    "too long a header": (431, get(f"Authorization: Bearer {KEY}{'x' * 9000}")),
    "two hosts": (400, request_head("GET", "/ping", f"Host: {KEY}") + b"\r\n"),
    "a key in a trailer": (400, chunked(f"2\r\n{{}}\r\n0\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())),
    "no colon in a trailer": (400, chunked(f"2\r\n{{}}\r\n0\r\nBearer {KEY}\r\n\r\n".encode())),
}


class Logged:
    """A server, with the log that it writes in one of the two formats."""

    def __init__(self, folder: Path, command: str, log_format: str) -> None:
        self.is_gunicorn = command == "gunicorn"
        self.log_format = log_format
        self.server = Server(
            folder, COMMANDS[command], LOG_FORMAT=log_format, LOG_LEVEL="DEBUG", GUNICORN_CMD_ARGS=DEBUG
        )


DEBUG = "--log-level debug"


@pytest.fixture(scope="module", params=[("gunicorn", "text"), ("gunicorn", "json"), ("run.py", "json")])
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    logged = Logged(tmp_path_factory.mktemp("malformed"), *request.param)
    try:
        yield logged
    finally:
        logged.server.process.kill()
        logged.server.process.wait(10)


def answers_to(server: Server, request: bytes) -> list[tuple[int, str, Any]]:
    """Return status, content type and body of each answer that the server gives before it closes."""
    with closing(server.connect()) as client:
        client.sendall(request)
        with suppress(OSError):  # the server has answered and closed already
            client.shutdown(socket.SHUT_WR)
        received = rest_of(client)
    assert KEY.encode() not in received
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        kind = re.search(rb"content-type: ([\w/-]+)", head, re.IGNORECASE)
        assert length is not None
        assert kind is not None
        body, received = rest[: int(length[1])], rest[int(length[1]) :]
        found.append((int(head.split()[1]), kind[1].decode(), body))
    return found


def test_a_list_by_500_uuids_is_answered(logged: Logged) -> None:
    uuids = [new_uuid() for _ in range(500)]
    path = "/monitor?" + "&".join(f"uuid={uuid}" for uuid in uuids)
    [(status, _, body)] = answers_to(logged.server, request_head("GET", path, "Connection: close") + b"\r\n")
    assert status == 200
    assert json.loads(body) == {"tasks": [], "next": None, "unknown": uuids}


def assert_nothing_logged(server: Server) -> None:
    said = server.log.read_text().lower()
    assert KEY.lower() not in said
    assert "note" not in said
    assert "traceback" not in said


@pytest.mark.parametrize("name", [*REFUSED_BY_BOTH, *REFUSED_BY_GUNICORN])
def test_a_request_that_cannot_be_read_is_answered_with_json_and_not_logged(
    logged: Logged, name: str
) -> None:
    status, request = {**REFUSED_BY_BOTH, **REFUSED_BY_GUNICORN}[name]
    answers = answers_to(logged.server, request)
    if logged.is_gunicorn or name in REFUSED_BY_BOTH:
        ((answered, kind, body),) = answers
        assert (answered, kind) == (status, "application/json")
        assert json.loads(body).keys() == {"error", "code"}
        assert body.endswith(b"\n")
    assert_nothing_logged(logged.server)


@pytest.mark.parametrize("headers", [[], ["Content-Length: 2"]], ids=["no length", "too small a length"])
def test_a_body_beyond_its_length_is_not_logged(logged: Logged, headers: list[str]) -> None:
    for ending in (b"", b"\r\n\r\n", b" HTTP/1.1\r\n\r\n"):
        answers = answers_to(logged.server, post(*headers, body=BODY + ending))
        assert answers
        assert {kind for _, kind, _ in answers} == {"application/json"}
        assert_nothing_logged(logged.server)


def test_data_after_a_body_that_is_too_large_gets_no_second_answer(logged: Logged) -> None:
    size = 3 * MAX_BODY_BYTES
    body = b"%x\r\n" % size + b"x" * size + b"\r\n" + KEY.encode() + b"\r\n\r\n"
    ((status, kind, _),) = answers_to(logged.server, chunked(body))
    assert (status, kind) == (413, "application/json")
    assert_nothing_logged(logged.server)


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "Path-Info"])
@pytest.mark.parametrize("value", ["/ping", "/elsewhere", f"/{KEY}"])
def test_header_with_a_path_does_not_move_the_routes(logged: Logged, name: str, value: str) -> None:
    ((status, _, body),) = answers_to(logged.server, get(f"{name}: {value}", "Connection: close"))
    assert (status, body) == (200, b"pong")
    assert_nothing_logged(logged.server)


def test_many_requests_that_cannot_be_read_make_one_log_line_a_minute(logged: Logged) -> None:
    for _ in range(50):
        answers_to(logged.server, REFUSED_BY_BOTH["a key as the first line"][1])
    assert 1 <= logged.server.log.read_text().count("that cannot be read") <= 2 * len(logged.server.pids)


def test_gunicorns_own_lines_have_the_form_of_all_others(logged: Logged) -> None:
    lines = logged.server.log.read_text().splitlines()
    booted = [line for line in lines if "Booting worker" in line]
    assert len(booted) == (2 if logged.is_gunicorn else 0)
    for line in booted:
        if logged.log_format == "json":
            assert json.loads(line)["name"] == "gunicorn.error"
        else:
            assert " INFO gunicorn.error [-]: Booting worker" in line


@contextmanager
def server_at(folder: Path, command: str, url: str, **settings: str) -> Iterator[Server]:
    """Start a server that answers at another URL than usual; {port} stands for its port."""

    class ServerAtUrl(Server):
        def _is_ready(self) -> bool:
            self.url = url.format(port=self.port)
            return super()._is_ready()

    server = ServerAtUrl(folder, COMMANDS[command], **settings)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(10)


def test_gunicorn_answers_paths_outside_its_prefix_with_json(tmp_path: Path) -> None:
    url = "http://127.0.0.1:{port}/proxy"
    with server_at(tmp_path, "gunicorn", url, SCRIPT_NAME="/proxy") as server:
        for path in ("/ping", "/", f"/{KEY}", "/proxy", "/proxy/elsewhere"):
            answer = requests.get(server.url.removesuffix("/proxy") + path, timeout=10)
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json"), path
            assert answer.json()["code"] == "not_found"
        assert_nothing_logged(server)


def test_a_server_on_an_ipv6_address_prints_a_url_that_can_be_opened(tmp_path: Path) -> None:
    with server_at(tmp_path, "run.py", "http://[::1]:{port}", FLASK_APP_HOST="::1") as server:
        (url,) = re.findall(r"listens on (\S+)", server.log.read_text())
        assert url == server.url
        assert requests.get(f"{url}/ping", timeout=10).text == "pong"


def test_a_broken_head_does_not_stop_the_server(logged: Logged) -> None:
    for name in REFUSED_BY_GUNICORN:
        answers_to(logged.server, REFUSED_BY_GUNICORN[name][1])
    until(lambda: requests.get(f"{logged.server.url}/ping", timeout=10).text == "pong", 10, "/ping")


def test_gunicorns_lines_keep_their_form_after_sighup(tmp_path: Path) -> None:
    server = Server(tmp_path, COMMANDS["gunicorn"], LOG_FORMAT="json")
    try:
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.log.read_text().count("Booting worker") == 4, 20, "the new workers")
        until(lambda: server.log.read_text().count("Worker exiting") == 2, 20, "the end of the old ones")
        first, *others = server.log.read_text().splitlines()
        assert "Starting gunicorn" in first, "that is before the settings are read"
        assert {json.loads(line)["levelname"] for line in others} == {"INFO", "WARNING"}
    finally:
        server.process.kill()
        server.process.wait(10)


def test_a_traceback_has_the_lines_of_the_code_and_no_message_that_may_quote_a_request() -> None:
    def fail() -> None:
        try:
            int(KEY)
        except ValueError as error:
            try:
                raise KeyError(KEY) from error
            except KeyError:
                raise StoreUnavailable("the store is away") from OSError(13, "Permission denied", KEY)

    try:
        fail()
    except StoreUnavailable as error:
        error.__cause__.__cause__ = error  # type: ignore[union-attr]  # a chain may be a ring
        lines = list(_traceback_lines(error))
    assert [line for line in lines if not line.startswith((" ", "Traceback"))] == [
        "builtins.PermissionError: Permission denied",
        "app.errors.StoreUnavailable: the store is away",
    ]
    assert any("in fail" in line for line in lines)
    assert KEY not in "".join(lines)
