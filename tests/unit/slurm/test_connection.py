"""What a request to slurmrestd looks like, and that it is sent once."""

import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import SettingsError, SlurmAmbiguous, SlurmUnavailable
from app.slurm.connection import Connection
from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from tests.support.scripted_server import CONNECT, READ, Scripted, replying, with_length

OK_ANSWER = replying(with_length(b"{}"))
TOKENS = TokenMint(b"a key for the tests alone, of 32+ bytes", 300)


def connect(url: str, ca_path: Path | None = None) -> Connection:
    return Connection(url, TOKENS, connect_timeout=CONNECT, read_timeout=READ, ca_path=ca_path)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_a_get_has_its_query_in_order_and_no_body(kind: str, tmp_path: Path) -> None:
    query: list[tuple[str, str | int]] = [
        ("job_id", "7,8"),
        ("flags", "a b&c=d"),
        ("flags", "é/~"),
        ("update_time", 5),
    ]
    with Scripted(kind, tmp_path, OK_ANSWER) as server, closing(server.connection()) as connection:
        connection.send(SlurmRequest("GET", "/slurm/v0.0.42/jobs/state", user="alice", query=query))
    head = server.heads[0].decode()
    target = "/slurm/v0.0.42/jobs/state?job_id=7%2C8&flags=a+b%26c%3Dd&flags=%C3%A9%2F~&update_time=5"
    assert head.startswith(f"GET {target} HTTP/1.1\r\n")
    for wanted in ("Accept: application/json", "Accept-Encoding: identity", "X-SLURM-USER-NAME: alice"):
        assert f"\r\n{wanted}\r\n" in head
    assert "content-" not in head.lower()
    assert "cookie" not in head.lower()


def test_a_post_without_a_body_has_a_length(tmp_path: Path) -> None:
    with Scripted("tcp", tmp_path, OK_ANSWER) as server, closing(server.connection()) as connection:
        connection.send(SlurmRequest("POST", "/a", user="alice"))
        connection.send(SlurmRequest("DELETE", "/b", user="alice"))
    assert all(b"\r\nContent-Length: 0\r\n" in head for head in server.heads)
    assert len(server.heads) == 2


def test_login_and_path_of_the_address_are_sent(tmp_path: Path) -> None:
    with Scripted("tcp", tmp_path, OK_ANSWER) as server:
        url = server.url.replace("http://", "http://us%65r:p%40ss@") + "/behind/a%20proxy"
        with closing(connect(url)) as connection:
            connection.send(SlurmRequest("GET", "/slurm/v0.0.42/diag", user="alice"))
            assert connection.host == server.url + "/behind/a%20proxy"
    head = server.heads[0].decode()
    assert head.startswith("GET /behind/a%20proxy/slurm/v0.0.42/diag HTTP/1.1\r\n")
    assert "\r\nauthorization: Basic dXNlcjpwQHNz\r\n" in head
    assert f"\r\nHost: {server.url.removeprefix('http://')}\r\n" in head


def test_the_environment_adds_no_proxy_and_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login eve password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Scripted("tcp", tmp_path, OK_ANSWER) as server, closing(server.connection()) as connection:
        assert connection.send(SlurmRequest("GET", "/diag", user="alice")).status == 200
    assert b"authorization" not in server.heads[0].lower()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_adds_no_authority(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scripted("tls", tmp_path, OK_ANSWER) as server:
        monkeypatch.setenv(name, str(server.ca_path))
        with closing(connect(server.url)) as connection, pytest.raises(SlurmUnavailable):
            connection.send(SlurmRequest("GET", "/diag", user="alice"))


def test_a_file_of_authorities_that_is_missing_is_no_reason_to_trust_others(tmp_path: Path) -> None:
    with (
        Scripted("tls", tmp_path, OK_ANSWER) as server,
        closing(connect(server.url, tmp_path / "none.pem")) as connection,
        pytest.raises(SlurmUnavailable, match="cannot be reached"),
    ):
        connection.send(SlurmRequest("GET", "/diag", user="alice"))


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    with Scripted("tls", tmp_path, OK_ANSWER) as server:
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        with closing(connect(url, server.ca_path)) as connection, pytest.raises(SlurmUnavailable):
            connection.send(SlurmRequest("GET", "/diag", user="alice"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 503])
def test_no_request_is_sent_again_whatever_the_status(status: int, tmp_path: Path) -> None:
    head = f"HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{{}}"
    with Scripted("tcp", tmp_path, replying(head.encode())) as server:
        with closing(server.connection()) as connection:
            reply = connection.send(SlurmRequest("GET", "/diag", user="alice"))
        assert reply.status == status
    assert len(server.heads) == 1


def test_a_kept_connection_that_was_closed_is_replaced(tmp_path: Path) -> None:
    clients: list[socket.socket] = []
    closed = threading.Event()

    def answer_once(client: socket.socket) -> None:
        clients.append(client)
        client.sendall(with_length(b"{}"))
        client.shutdown(socket.SHUT_RDWR)
        closed.set()

    with Scripted("tcp", tmp_path, answer_once) as server, closing(server.connection()) as connection:
        connection.send(SlurmRequest("GET", "/diag", user="alice"))
        assert closed.wait(5)
        connection.send(SlurmRequest("POST", "/job/submit", user="alice"))
    assert len(set(clients)) == 2


def test_a_post_on_a_kept_connection_that_breaks_off_is_ambiguous_and_not_sent_again(tmp_path: Path) -> None:
    def break_off_at_a_post(client: socket.socket) -> None:
        if server.heads[-1].startswith(b"POST"):
            client.shutdown(socket.SHUT_RDWR)
        else:
            client.sendall(with_length(b"{}"))

    with Scripted("tcp", tmp_path, break_off_at_a_post) as server, closing(server.connection()) as connection:
        connection.send(SlurmRequest("GET", "/diag", user="alice"))
        with pytest.raises(SlurmAmbiguous):
            connection.send(SlurmRequest("POST", "/job/submit", user="alice"))
        assert connection.send(SlurmRequest("GET", "/diag", user="alice")).status == 200
    assert [head.split()[0] for head in server.heads] == [b"GET", b"POST", b"GET"]


@pytest.mark.parametrize("address", ["http://exa mple:80", "http://user:p%E2%82%AC@host:80"])
def test_an_address_that_cannot_be_used_is_a_wrong_setting(address: str) -> None:
    with pytest.raises(SettingsError, match="SLURM_REST_HOST") as caught:
        connect(address)
    assert "user" not in str(caught.value)
