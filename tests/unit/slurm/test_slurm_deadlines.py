"""One deadline and one size limit for a whole answer of slurmrestd, whatever part of it drips."""

import gzip
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmProxyError, SlurmUnavailable
from app.slurm import connection as connection_module
from app.slurm.connection import Connection
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from tests.support.scripted_server import CONNECT, OK, READ, Script, Scripted, replying, with_length

pytestmark = pytest.mark.timed

LONGEST = 2 * CONNECT + READ
SLACK = 0.8  # for a busy machine


def dripping(begun: bytes, drop: bytes) -> Script:
    """Return a script that sends `begun`, and then `drop` for ever, ten times a second."""

    def drip(client: socket.socket) -> None:
        client.sendall(begun)
        while True:
            client.sendall(drop)
            time.sleep(0.1)

    return drip


def endless(begun: bytes, piece: bytes) -> Script:
    """Return a script that sends as fast as it can, for ever."""

    def pour(client: socket.socket) -> None:
        client.sendall(begun)
        while True:
            client.sendall(piece * (65536 // len(piece) + 1))

    return pour


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PHASES = {
    "status line": (b"HTTP/1.1 200", b" "),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header line": (OK + b"X-Long: ", b"x"),
    "headers": (OK, b"X: y\r\n"),
    "body with a length": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "body without a length": (OK + b"Connection: close\r\n\r\n", b" "),
    "chunk size": (CHUNKED, b"0"),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "inside a chunk": (CHUNKED + b"fffff\r\n", b" "),
    "trailer": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "nothing at all": (b"", b""),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1000000\r\n\r\n", b" "),
}


def timed(connection: Connection, method: str) -> tuple[SlurmProxyError, float]:
    began = time.monotonic()
    with pytest.raises(SlurmProxyError) as caught:
        connection.send(SlurmRequest(method, "/slurm/v0.0.42/job/submit", user="alice", body={}))
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_answer_that_drips_ends_at_the_deadline(kind: str, phase: str, tmp_path: Path) -> None:
    with Scripted(kind, tmp_path, dripping(*PHASES[phase])) as server:
        connection = server.connection()
        error, seconds = timed(connection, "POST")
        connection.close()
    assert type(error) is SlurmAmbiguous
    assert seconds < LONGEST + SLACK


@pytest.mark.parametrize("phase", ["status line", "body with a length"])
def test_dripping_answers_do_not_use_up_the_pool(phase: str, tmp_path: Path) -> None:
    with Scripted("tcp", tmp_path, dripping(*PHASES[phase])) as server:
        connection = server.connection()
        threads = [threading.Thread(target=timed, args=[connection, "POST"]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONGEST + SLACK)
        assert not any(thread.is_alive() for thread in threads)
        error, _ = timed(connection, "GET")
        assert "did not answer in time" in str(error), "there was a free connection"
        connection.close()


@pytest.mark.parametrize("drop", [b"", b"\x16", b"\x16\x03\x03\x40\x00"])
def test_a_tls_handshake_that_drips_ends_within_the_time_to_connect(drop: bytes, tmp_path: Path) -> None:
    with Scripted("tls", tmp_path, dripping(b"", drop), handshakes=False) as server:
        connection = server.connection()
        error, seconds = timed(connection, "POST")
        connection.close()
    assert type(error) is SlurmUnavailable, "nothing of the request was sent"
    assert seconds < LONGEST + SLACK


def test_a_host_with_many_addresses_that_do_not_answer_takes_one_time_to_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), suppress(OSError), socket.socket() as second:
            second.setblocking(False)
            with suppress(BlockingIOError):
                second.connect(address)
            entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry] * 10)
            tokens = TokenMint(b"a key for the tests alone, of 32+ bytes", 300)
            url = "http://many.example:80"
            connection = Connection(url, tokens, connect_timeout=CONNECT, read_timeout=READ)
            error, seconds = timed(connection, "POST")
            connection.close()
    assert type(error) is SlurmUnavailable
    assert seconds < LONGEST + SLACK


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached at once; memory is not the point then."""
    monkeypatch.setattr(connection_module, "_MAX_ANSWER_BYTES", 2**20)
    monkeypatch.setattr(connection_module, "_MAX_LIST_BYTES", 2**22)


ENDLESS = {
    "status line": (b"", b"H"),
    "header line": (OK + b"X-Long: ", b"x"),
    "headers": (OK, b"X: y\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body without a length": (OK + b"Connection: close\r\n\r\n", b" "),
    "body with a length": (OK + b"Content-Length: 1000000000000000\r\n\r\n", b" "),
    "chunk size": (CHUNKED, b"0"),
    "one chunk": (CHUNKED + b"fffffffffffffff\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailer line": (CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"x"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b" "),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("phase", ENDLESS)
def test_an_answer_without_an_end_is_cut_off_by_its_size(kind: str, phase: str, tmp_path: Path) -> None:
    with Scripted(kind, tmp_path, endless(*ENDLESS[phase])) as server:
        connection = server.connection()
        error, seconds = timed(connection, "POST")
        connection.close()
    assert type(error) is SlurmAmbiguous
    assert seconds < LONGEST + SLACK


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("path", "size", "is_read"),
    [("jobs", 2**21, True), ("jobs", 2**23, False), ("diag", 2**19, True), ("diag", 2**21, False)],
)
def test_a_list_may_be_larger_than_another_answer(
    path: str, size: int, is_read: bool, tmp_path: Path
) -> None:
    content = json.dumps({"text": "x" * size}).encode()
    with Scripted("tcp", tmp_path, replying(with_length(content))) as server:
        connection = server.connection()
        if is_read:
            assert (
                len(connection.send(SlurmRequest("GET", f"/slurm/v0.0.42/{path}", user="alice")).body["text"])
                == size
            )
        else:
            with pytest.raises(SlurmMisbehaved, match="too large"):
                connection.send(SlurmRequest("GET", f"/slurm/v0.0.42/{path}", user="alice"))
        connection.close()


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"gzip, gzip"])
def test_a_compressed_answer_is_not_asked_for_and_not_inflated(encoding: bytes, tmp_path: Path) -> None:
    bomb = gzip.compress(b" " * 2**28)
    answer = with_length(bomb, b"Content-Encoding: " + encoding + b"\r\n")
    with Scripted("tcp", tmp_path, replying(answer)) as server:
        connection = server.connection()
        reply = connection.send(SlurmRequest("GET", "/slurm/v0.0.42/diag", user="alice"))
        connection.close()
    assert reply == Reply(200, {}, "", "compressed, which was not requested")
    assert b"accept-encoding: identity" in server.heads[0].lower()


def test_a_connection_is_used_again_after_a_whole_answer(tmp_path: Path) -> None:
    accepted = []

    def script(client: socket.socket) -> None:
        accepted.append(client)
        client.sendall(with_length(b'{"n": %d}' % len(accepted)))

    with Scripted("tcp", tmp_path, script) as server:
        connection = server.connection()
        for number in range(1, 4):
            time.sleep(LONGEST / 3)  # the deadline of one request is not that of the next
            assert connection.send(SlurmRequest("GET", "/diag", user="alice")).body == {"n": number}
        connection.close()
    assert len(set(accepted)) == 1


@pytest.mark.parametrize("early", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n"])
def test_an_answer_is_never_that_of_the_request_before(early: bytes, tmp_path: Path) -> None:
    requests = []

    def script(client: socket.socket) -> None:
        requests.append(client)
        if len(requests) == 1:
            client.sendall(early)
            time.sleep(0.2)
        client.sendall(with_length(b'{"n": %d}' % len(requests)))

    with Scripted("tcp", tmp_path, script) as server:
        connection = server.connection()
        with pytest.raises(SlurmAmbiguous):
            connection.send(SlurmRequest("POST", "/job/submit", user="alice", body={}))
        time.sleep(0.1)
        assert connection.send(SlurmRequest("GET", "/diag", user="alice")).body == {"n": 2}
        connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        OK + b"Content-Length: -5\r\nConnection: close\r\n\r\n{}",
        OK + b"Content-Length: 1, 2\r\nConnection: close\r\n\r\n{}",
        OK + b"Content-Length: x\r\nConnection: close\r\n\r\n{}",
        OK + b"Location: \xff\xfe\r\nSet-Cookie: \xff=;;=\r\n: \r\nContent-Length: 2\r\n\r\n{}",
        CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"xyz\r\n{}\r\n",
        OK + b"Content-Type: application/json; charset=no-such\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_an_answer_that_is_no_http_is_an_error_of_our_own(answer: bytes, tmp_path: Path) -> None:
    def script(client: socket.socket) -> None:
        client.sendall(answer)
        client.shutdown(socket.SHUT_RDWR)

    with Scripted("tcp", tmp_path, script) as server:
        connection = server.connection()
        with suppress(SlurmAmbiguous):
            assert connection.send(SlurmRequest("POST", "/job/submit", user="alice", body={})).status == 200
        connection.close()
