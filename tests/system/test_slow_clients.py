"""Clients that send or read slowly, and floods of connections: on gunicorn and on the development server."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from app.constants import MAX_BODY_BYTES
from tests.conftest import until
from tests.support.real.processes import free_port
from tests.support.service import ROOT

pytestmark = pytest.mark.timed

COMMANDS = {
    "gunicorn": ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"],
    "run.py": ["run.py"],
}
TIMEOUT = 1.5  # seconds, for a request and for an answer
SOON = 2.0  # seconds; /ping answers in milliseconds, but the machine may be busy
MANY = 40  # connections; gunicorn has 2 workers of 8 threads, and LIMIT_CONNECTIONS is 32
OPEN_FILES = 256
SECRET = "the-content-of-a-request"


def _is_socket(path: Path) -> bool:
    """Return whether an open file of a process is a socket; False if it has just been closed."""
    try:
        return str(path.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False


class Server:
    """One of the two servers as a process of its own, with short time-outs and few open files."""

    def __init__(self, folder: Path, command: list[str], **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GUNICORN_BIND": f"127.0.0.1:{self.port}",
            "FLASK_APP_PORT": str(self.port),
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0IGtleSBmb3IgdGVzdHMgd2l0aCAzMiBieXRlcw==",
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            "CLIENT_REQUEST_TIMEOUT_SECONDS": str(TIMEOUT),
            "CLIENT_RESPONSE_TIMEOUT_SECONDS": str(TIMEOUT),
            "LIMIT_CONNECTIONS": "32",
            **settings,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.set_open_files(OPEN_FILES)  # inherited by the workers, which start a second later
        until(self._is_ready, 60, f"the start of the server (see {self.log})")
        self.pids = self.serving_pids()

    def set_open_files(self, soft: int, *pids: int) -> None:
        for pid in pids or (self.process.pid,):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    def serving_pids(self) -> list[int]:
        """Return gunicorn's workers, or the process itself."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children] or [pid]

    def open_sockets(self) -> int:
        return sum(_is_socket(path) for pid in self.pids for path in Path(f"/proc/{pid}/fd").iterdir())

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", self.port))
        return client

    def assert_answers(self) -> None:
        """Assert that /ping answers soon, many times, and that no process was replaced."""
        for _ in range(10):
            began = time.monotonic()
            assert requests.get(f"{self.url}/ping", timeout=10).text == "pong"
            assert time.monotonic() - began < SOON
        assert self.serving_pids() == self.pids

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            is_answering = requests.get(f"{self.url}/ping", timeout=1).text == "pong"
        except (requests.ConnectionError, requests.Timeout):
            return False
        return is_answering and self.log.read_text().count("Booting worker") in (0, 2)


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    began = time.monotonic()
    server = Server(tmp_path_factory.mktemp("slow"), COMMANDS[request.param])
    try:
        yield server
        logged = server.log.read_text()
        assert SECRET not in logged
        assert "Traceback" not in logged
        minutes = 1 + (time.monotonic() - began) // 60
        assert 1 <= logged.count("clients were too slow, or too many") <= len(server.pids) * minutes
    finally:
        server.process.kill()
        server.process.wait(10)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def request_head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode()


def opened(server: Server, stack: ExitStack, first_bytes: bytes, count: int = MANY) -> list[socket.socket]:
    clients = [stack.enter_context(server.connect()) for _ in range(count)]
    for client in clients:
        client.sendall(first_bytes)
    return clients


def rest_of(client: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
    return received


def parsed(answer: bytes) -> tuple[int, Any]:
    answer = re.sub(rb"(HTTP/1.1 100 Continue\r\n\r\n)+", b"", answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def assert_request_timeout(answer: bytes) -> None:
    status, body = parsed(answer)
    assert (status, body["code"]) == (408, "request_timeout")


def test_half_heads_do_not_stop_the_server_and_are_answered_408(server: Server, stack: ExitStack) -> None:
    clients = opened(server, stack, request_head("GET", "/ping", f"X-Secret: {SECRET}"))
    server.assert_answers()
    for client in clients:
        assert_request_timeout(rest_of(client))
    server.assert_answers()


@pytest.mark.parametrize(
    ("first_bytes", "drop"),
    [
        (request_head("GET", "/ping") + b"X-Secret: ", b"x"),
        (request_head("POST", "/submit", "Content-Length: 1000") + b"\r\n", b" "),
        (request_head("POST", "/submit", "Transfer-Encoding: chunked") + b"\r\n", b"1\r\n \r\n"),
        (request_head("POST", "/submit", "Transfer-Encoding: chunked") + b"\r\n1000\r\n", b" "),
    ],
    ids=["head", "body", "chunks", "chunk"],
)
def test_a_request_that_drips_is_answered_408_at_its_deadline(
    server: Server, stack: ExitStack, first_bytes: bytes, drop: bytes
) -> None:
    clients = opened(server, stack, first_bytes)
    began = time.monotonic()
    waiting = list(clients)
    while waiting:
        assert time.monotonic() - began < TIMEOUT + SOON
        server.assert_answers()
        for client in list(waiting):
            client.setblocking(False)
            try:
                client.send(drop)
                client.recv(1, socket.MSG_PEEK)
                waiting.remove(client)
            except BlockingIOError:
                continue
            except ConnectionError:
                waiting.remove(client)
    survivors = [answer for client in clients if (answer := _received(client))]
    assert survivors  # a reset connection may have lost its answer
    for answer in survivors:
        assert_request_timeout(answer)


def _received(client: socket.socket) -> bytes:
    client.settimeout(10)
    return rest_of(client)


def test_a_second_request_on_a_connection_has_its_own_deadline(server: Server, stack: ExitStack) -> None:
    client = stack.enter_context(server.connect())
    client.sendall(request_head("GET", "/ping") + b"\r\n")
    first = client.recv(65536)
    assert first.startswith(b"HTTP/1.1 200")
    if b"keep-alive" in first:  # the development server closes the connection
        client.sendall(request_head("GET", "/ping"))
        assert_request_timeout(rest_of(client).removeprefix(b"pong"))


def test_requests_on_one_connection_are_answered_at_once_after_a_pause_and_together(
    server: Server, stack: ExitStack
) -> None:
    client = stack.enter_context(server.connect())
    client.settimeout(10)
    ping = request_head("GET", "/ping") + b"\r\n"
    for pause in (0.0, 0.0, 0.02, 0.3, 0.0):  # a thread waits 0.05 s for the next request, then the main loop
        time.sleep(pause)
        client.sendall(ping)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        if b"keep-alive" not in answer:  # the development server closes the connection
            return
        while not answer.endswith(b"pong"):
            answer += client.recv(65536)
    client.sendall(3 * ping)
    answers = b""
    while answers.count(b"\r\n\r\npong") < 3:
        received = client.recv(65536)
        assert received, answers
        answers += received


def test_clients_that_do_not_read_do_not_stop_the_server_and_are_closed(
    server: Server, stack: ExitStack
) -> None:
    sockets = server.open_sockets()
    clients = [stack.enter_context(server.connect(receive_buffer=2048)) for _ in range(MANY)]
    for client in clients:
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.send((request_head("GET", "/openapi.json") + b"\r\n") * 200)
    server.assert_answers()
    until(lambda: server.open_sockets() <= sockets, 30, "the end of the connections")
    server.assert_answers()


def test_clients_that_keep_closed_connections_open_do_not_stop_the_server(
    server: Server, stack: ExitStack
) -> None:
    opened(server, stack, request_head("GET", "/ping", "Connection: close") + b"\r\n")
    server.assert_answers()


def test_a_flood_of_idle_connections_does_not_end_a_worker(server: Server, stack: ExitStack) -> None:
    flood = [stack.enter_context(server.connect()) for _ in range(600)]
    server.assert_answers()
    for client in flood:
        client.close()
    server.assert_answers()


def test_a_process_out_of_open_files_goes_on_serving_once_it_has_some(
    server: Server, stack: ExitStack
) -> None:
    server.set_open_files(4, *server.pids)
    try:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        time.sleep(0.5)
        assert server.serving_pids() == server.pids
    finally:
        server.set_open_files(OPEN_FILES, *server.pids)
    server.assert_answers()
    for client in clients:
        client.sendall(request_head("GET", "/ping", "Connection: close") + b"\r\n")
        assert rest_of(client).endswith(b"pong")


@pytest.mark.parametrize("pause", [0.0, TIMEOUT / 4], ids=["at once", "in pieces"])
def test_a_whole_body_reaches_the_application_in_both_transfer_codings(server: Server, pause: float) -> None:
    body = b"x" * MAX_BODY_BYTES

    def pieces() -> Iterator[bytes]:
        yield body[:1000]
        time.sleep(pause)
        yield body[1000:]

    for data in (pieces(), body):
        answer = requests.post(f"{server.url}/submit", data=data, timeout=10)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("body: is not JSON")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_larger_body_is_answered_413_in_both_transfer_codings(server: Server, is_chunked: bool) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    answer = requests.post(f"{server.url}/submit", data=iter([body]) if is_chunked else body, timeout=10)
    assert answer.status_code == 413


def test_a_body_after_100_continue_reaches_the_application(server: Server, stack: ExitStack) -> None:
    (client,) = opened(
        server,
        stack,
        request_head("POST", "/submit", "Content-Length: 2", "Expect: 100-continue", "Connection: close")
        + b"\r\n",
        count=1,
    )
    assert client.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.sendall(b"[]")
    assert parsed(rest_of(client))[0] == 400


def test_a_body_that_stops_after_100_continue_is_answered_408(server: Server, stack: ExitStack) -> None:
    (client,) = opened(
        server,
        stack,
        request_head("POST", "/submit", "Content-Length: 2", "Expect: 100-continue") + b"\r\n",
        count=1,
    )
    assert_request_timeout(rest_of(client))


def test_a_body_in_a_broken_transfer_coding_is_answered_400(server: Server, stack: ExitStack) -> None:
    (client,) = opened(
        server,
        stack,
        request_head("POST", "/submit", "Transfer-Encoding: chunked", "Connection: close")
        + f"\r\n{SECRET}\r\n\r\n".encode(),
        count=1,
    )
    status, body = parsed(rest_of(client))
    assert (status, body["code"]) == (400, "bad_request")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_server_stops_soon_although_clients_hold_half_requests(
    tmp_path: Path, stack: ExitStack, command: list[str]
) -> None:
    server = Server(tmp_path, command, CLIENT_REQUEST_TIMEOUT_SECONDS="60")
    try:
        opened(server, stack, request_head("GET", "/ping"), count=20)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(8) == 0
    finally:
        server.process.kill()
        server.process.wait(10)


def test_a_request_that_is_arriving_when_gunicorn_stops_is_answered(tmp_path: Path, stack: ExitStack) -> None:
    """Most clients send the body in a packet of its own."""
    server = Server(tmp_path, COMMANDS["gunicorn"])
    try:
        body = b'{"task": {}}'
        head = request_head("POST", "/submit", f"Content-Length: {len(body)}") + b"\r\n"
        clients = opened(server, stack, head, count=5)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        for client in clients:
            client.sendall(body)
        for client in clients:
            status, answer = parsed(rest_of(client))
            assert (status, answer["code"]) == (400, "invalid_request")
        assert server.process.wait(8) == 0
    finally:
        server.process.kill()
        server.process.wait(10)
