"""nginx with the documented configuration, in front of the real server: every error is JSON."""

import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from app.constants import MAX_BODY_BYTES
from tests.conftest import not_covered, until
from tests.support.real import RealPartMissing
from tests.support.real.nginx import Nginx
from tests.support.real.processes import install
from tests.support.tasks import new_uuid
from tests.system.test_docker import Gunicorn

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def _nginx_is_installed(request: pytest.FixtureRequest) -> None:
    try:
        install({"nginx": "nginx"})
    except RealPartMissing as missing:
        not_covered(request, "nginx", str(missing))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="slurm-proxy-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nginx(folder: Path) -> Iterator[Nginx]:
    """nginx in front of slurm-proxy, which runs on gunicorn and asks for keys."""
    upstream = folder / "http"
    server = Gunicorn(
        folder, GUNICORN_BIND=f"unix:{upstream}", ACCESS_METHODS="keys", ACCESS_TRUSTED_PROXIES="unix"
    )
    try:
        with Nginx(upstream) as nginx:
            until(lambda: call(nginx, "GET", "/ping").text == "pong", 30, f"gunicorn (see {server.log})")
            yield nginx
    finally:
        server.process.terminate()
        server.process.wait(30)


@contextmanager
def silent_server(path: Path, *, closes: bool) -> Iterator[None]:
    """Take requests and answer none of them."""
    taken: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.recv(65536)
                taken.append(client)
                if closes:
                    client.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for client in taken:
        client.close()


def call(nginx: Nginx, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, nginx.url + path, verify=str(nginx.ca_path), timeout=30, **options)


def assert_error(answer: requests.Response, status: int, code: str) -> None:
    """Assert that the answer has the form of slurm-proxy's own errors."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text.endswith("}\n")
    said = answer.json()
    assert said.keys() == {"error", "code"}
    assert said["code"] == code
    assert said["error"]


def raw(nginx: Nginx, request: bytes) -> bytes:
    """Send bytes by TLS; return all that comes back until nginx closes the connection."""
    context = ssl.create_default_context(cafile=nginx.ca_path)
    plain = socket.create_connection(("127.0.0.1", nginx.port), 10)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_nginx_passes_the_servers_own_errors_on(nginx: Nginx) -> None:
    answer = call(nginx, "GET", "/monitor/task_uuid/x")
    assert_error(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    largest = call(nginx, "POST", "/submit", data=b" " * MAX_BODY_BYTES)
    assert_error(largest, 401, "not_authenticated")


def test_the_examples_of_docs_behind_nginx_contain_the_address_of_the_request(nginx: Nginx) -> None:
    page = call(nginx, "GET", "/docs", headers={"X-Forwarded-Proto": "http"}).text
    assert f"{nginx.url}/submit" in page
    assert "http://" not in page


def test_nginx_passes_a_request_without_a_host_on(nginx: Nginx) -> None:
    assert raw(nginx, b"GET /docs HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_nginx_answers_a_body_that_is_too_large_with_json(nginx: Nginx) -> None:
    answer = call(nginx, "POST", "/submit", data=b" " * (MAX_BODY_BYTES + 1))
    assert_error(answer, 413, "request_entity_too_large")
    assert "Retry-After" not in answer.headers
    chunks = iter([b" " * MAX_BODY_BYTES, b" "])
    assert_error(call(nginx, "POST", "/submit", data=chunks), 413, "request_entity_too_large")


def test_nginx_answers_requests_beyond_the_rate_limit_with_json_and_a_time(nginx: Nginx) -> None:
    with ThreadPoolExecutor(90) as pool:
        found = list(pool.map(lambda _: call(nginx, "GET", "/ping"), range(90)))
    refused = [answer for answer in found if answer.status_code == 429]
    assert 20 < len(refused) < 70
    for answer in refused:
        assert_error(answer, 429, "too_many_requests")
        assert answer.headers["Retry-After"] == "2"
    assert {answer.text for answer in found if answer.status_code != 429} == {"pong"}
    time.sleep(2)
    assert call(nginx, "GET", "/ping").text == "pong"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nginx_answers_for_a_server_that_is_down_with_json_and_a_time(folder: Path, method: str) -> None:
    with Nginx(folder / "http") as nginx:
        answer = call(nginx, method, "/submit", data=b"{}")
    assert_error(answer, 502, "bad_gateway")
    assert answer.headers["Retry-After"] == "5"


def test_nginx_answers_for_a_server_that_dies_with_json_and_a_time(folder: Path) -> None:
    with silent_server(folder / "http", closes=True), Nginx(folder / "http") as nginx:
        answer = call(nginx, "POST", "/submit", data=b"{}")
    assert_error(answer, 502, "bad_gateway")
    assert answer.headers["Retry-After"] == "5"


def test_nginx_answers_for_a_server_that_hangs_with_json_and_a_time(folder: Path) -> None:
    upstream = folder / "http"
    with silent_server(upstream, closes=False), Nginx(upstream, proxy_read_timeout="1s") as nginx:
        answer = call(nginx, "POST", "/submit", data=b"{}")
    assert_error(answer, 504, "gateway_timeout")
    assert answer.headers["Retry-After"] == "30"


def test_nginx_answers_connections_beyond_a_limit_with_json_and_a_time(folder: Path) -> None:
    limit = "limit_conn_zone $binary_remote_addr zone=connections:1m; limit_conn connections 1;"
    limited = Nginx(folder / "http", limit, proxy_read_timeout="2s")
    with silent_server(folder / "http", closes=False), limited as nginx, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: call(nginx, "GET", "/ping"), range(4)))
    refused = [answer for answer in found if answer.status_code != 504]
    assert len(refused) == 3
    for answer in refused:
        assert_error(answer, 503, "service_unavailable")
        assert answer.headers["Retry-After"] == "5"


def test_nginx_passes_a_list_by_500_uuids_on(nginx: Nginx) -> None:
    path = "/monitor?" + "&".join(f"uuid={new_uuid()}" for _ in range(500))
    assert_error(call(nginx, "GET", path), 401, "not_authenticated")


def test_nginx_answers_requests_that_it_refuses_itself_with_json(folder: Path) -> None:
    with Nginx(folder / "http") as nginx:
        assert_error(call(nginx, "GET", "/" + "x" * 33_000), 414, "request_uri_too_large")
        assert_error(call(nginx, "GET", "/", headers={"X": "x" * 33_000}), 400, "bad_request")
        assert_error(call(nginx, "TRACE", "/"), 405, "method_not_allowed")
        assert_error(call(nginx, "GET", "/.slurm-proxy-error"), 404, "not_found")
        assert_error(call(nginx, "POST", "/", headers={"Transfer-Encoding": "gzip"}), 501, "refused")
        plain = requests.get(nginx.url.replace("https:", "http:") + "/ping", timeout=30)
        assert_error(plain, 400, "bad_request")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\n\r\n", 400),  # without Host
        (b"GET /ping HTTP/9.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /../x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /submit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_nginx_answers_a_malformed_request_with_json(folder: Path, request_: bytes, status: int) -> None:
    with Nginx(folder / "http") as nginx:
        head, _, body = raw(nginx, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/json" in head
    assert body.startswith(b'{"error": ')


def test_nginx_closes_the_connection_of_a_slow_client_without_an_answer(folder: Path) -> None:
    with Nginx(folder / "http", "client_body_timeout 1s;") as nginx:
        assert raw(nginx, b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{") == b""
