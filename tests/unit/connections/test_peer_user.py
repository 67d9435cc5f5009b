"""Whose process is at the other end of a connection: processes of several users, and real servers."""

import grp
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from app.connections.peer_user import FindSocket, PeerUser, find_peer_user
from app.connections.sock_diag import Address, find_socket
from tests.conftest import not_covered, until
from tests.support.real import RealPartMissing
from tests.support.real.nginx import make_daemon, write_main_configuration
from tests.support.real.processes import answers, free_port, install
from tests.support.service import ROOT

NOBODY = 65534
DAEMON = 1
GUNICORN = ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
CONNECT = """
import os, socket, sys
family, address, port, then, user = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
client = socket.socket(getattr(socket, family))
client.connect(address if family == "AF_UNIX" else (address, int(port)))
if then == "half":
    client.shutdown(socket.SHUT_WR)
if then == "reset":
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
if then in ("close", "reset"):
    client.close()
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _as_root(request: pytest.FixtureRequest) -> None:
    if os.geteuid() != 0:
        not_covered(request, "processes of other users", "the tests do not run as root")


@contextmanager
def accepted(
    family: str = "AF_INET", address: str = "127.0.0.1", user: int = 0, then: str = "", bind: str = ""
) -> Iterator[socket.socket]:
    """A connection that a process of that user has made."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        listening_family = socket.AF_INET6 if ":" in bind else getattr(socket, family)
        listener = stack.enter_context(socket.socket(listening_family))
        listener.bind(str(folder / "socket") if family == "AF_UNIX" else (bind or address, 0))
        listener.listen()
        if family == "AF_UNIX":
            target, port = str(folder / "socket"), "0"
            (folder / "socket").chmod(0o777)
        else:
            target, port = address, str(listener.getsockname()[1])
        argv = [sys.executable, "-c", CONNECT, family, target, port, then, str(user)]
        client = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        stack.callback(client.terminate)
        connection, _ = listener.accept()
        stack.enter_context(connection)
        assert client.stdout is not None
        client.stdout.readline()
        yield connection


ADDRESSES = [
    ("AF_INET", "127.0.0.1", ""),
    ("AF_INET6", "::1", ""),
    ("AF_INET6", "::ffff:127.0.0.1", "::"),  # IPv4 from sockets that were opened for IPv6, at either end
    ("AF_INET", "127.0.0.1", "::"),
    ("AF_UNIX", "", ""),
]


def find_nothing(*_: object) -> None:
    """Answer as a kernel that shows no single socket, so that its table is read."""


WAYS = pytest.mark.parametrize("find", [find_socket, find_nothing], ids=["netlink", "table"])


@WAYS
@pytest.mark.parametrize(("family", "address", "bind"), ADDRESSES)
@pytest.mark.parametrize(
    ("user", "expected"), [(0, PeerUser.TRUSTED), (NOBODY, PeerUser.OTHER), (DAEMON, PeerUser.OTHER)]
)
def test_the_user_of_the_peer_is_found(
    find: FindSocket, family: str, address: str, bind: str, user: int, expected: PeerUser
) -> None:
    if ":" in address + bind and not socket.has_ipv6:
        pytest.skip("this system has no IPv6")
    with accepted(family, address, user, bind=bind) as connection:
        assert find_peer_user(connection, find=find) is expected


@WAYS
def test_an_ipv6_client_of_an_ipv4_listener_is_found(find: FindSocket) -> None:
    """Its socket stands in the table of IPv6, the server's in that of IPv4."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket(socket.AF_INET6)
    client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
    connection, _ = listener.accept()
    with listener, client, connection:
        assert find_peer_user(connection, find=find) is PeerUser.TRUSTED


@WAYS
@pytest.mark.parametrize("then", ["half", "close", "reset"])
def test_a_peer_that_has_closed_its_socket_is_not_taken_for_root(find: FindSocket, then: str) -> None:
    """The kernel shows such a socket as one of root's."""
    with accepted(user=NOBODY, then=then) as connection:
        assert find_peer_user(connection, find=find) is PeerUser.OTHER


@WAYS
def test_a_peer_that_has_only_ended_its_request_is_found(find: FindSocket) -> None:
    with accepted(then="half") as connection:
        assert find_peer_user(connection, find=find) is PeerUser.TRUSTED


@WAYS
def test_a_later_connection_with_the_same_ports_is_not_taken_for_the_peer(find: FindSocket) -> None:
    with accepted(user=NOBODY, then="reset") as connection, accepted() as other:
        os.dup2(connection.fileno(), other.fileno())
        assert find_peer_user(other, find=find) is PeerUser.OTHER


def test_a_socket_with_another_inode_proves_nothing_of_the_peer() -> None:
    """A connection that was closed, and a later one with the same ports."""

    def find_another(local: Address, remote: Address) -> tuple[int, int] | None:
        found = find_socket(local, remote)
        return (0, found[1] + 1) if found else None

    with accepted(user=NOBODY) as connection:
        assert find_peer_user(connection, find=find_another) is PeerUser.OTHER


def test_no_table_is_read_if_the_kernel_shows_the_sockets(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with accepted(user=NOBODY) as other, accepted() as own:
        if find_socket(own.getsockname(), own.getpeername()) is None:
            not_covered(request, "netlink", "the kernel does not answer its questions")
        assert find_peer_user(other, tmp_path) is PeerUser.OTHER
        assert find_peer_user(own, tmp_path) is PeerUser.TRUSTED


IN_A_NAMESPACE = """
import os, socket, sys
from app.connections.peer_user import find_peer_user
from app.connections.sock_diag import find_socket
if sys.argv[2] != "0":
    os.setuid(int(sys.argv[2]))
connection = socket.socket(fileno=int(sys.argv[1]))
own, peer = connection.getsockname()[:2], connection.getpeername()[:2]
print(find_socket(own, peer) is not None, find_peer_user(connection).name)
"""


@pytest.mark.parametrize(
    ("unshare", "user", "expected"),
    [
        ([], 0, "True TRUSTED"),
        ([], NOBODY, "True TRUSTED"),
        ([], DAEMON, "True OTHER"),
        (["unshare", "--net"], 0, "False UNKNOWN"),
        (["unshare", "--user"], 0, "True OTHER"),  # here no user is one that the namespace knows
    ],
)
def test_the_kernel_answers_every_user_but_only_about_the_own_network_namespace(
    request: pytest.FixtureRequest, unshare: list[str], user: int, expected: str
) -> None:
    if unshare and subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        not_covered(request, "namespaces", "this system does not let the tests make one")
    with accepted(user=NOBODY if user else 0) as connection:
        number = connection.fileno()
        argv = [*unshare, sys.executable, "-c", IN_A_NAMESPACE, str(number), str(user)]
        answer = subprocess.run(argv, pass_fds=[number], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == expected


def test_peer_user_is_unknown_on_a_system_without_a_socket_table(tmp_path: Path) -> None:
    with accepted(user=NOBODY) as connection:
        assert find_peer_user(connection, tmp_path, find_nothing) is PeerUser.UNKNOWN


def test_peer_user_is_unknown_in_the_table_of_another_network_namespace(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_bytes(Path("/proc/net/tcp").read_bytes().split(b"\n")[0] + b"\n")
    with accepted(user=NOBODY) as connection:
        assert find_peer_user(connection, tmp_path, find_nothing) is PeerUser.UNKNOWN


@pytest.fixture
def world_readable() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_peer_with_the_overflow_id_of_a_user_namespace_is_not_trusted(world_readable: Path) -> None:
    """In a user namespace all users without a mapping share one id."""
    (world_readable / "sys/kernel").mkdir(parents=True)
    (world_readable / "sys/kernel/overflowuid").write_text(f"{NOBODY}\n")
    (world_readable / "self").mkdir()
    (world_readable / "net").symlink_to("/proc/net/")
    for mapped, expected in ((2**32 - 1, PeerUser.TRUSTED), (65536, PeerUser.OTHER)):
        (world_readable / "self/uid_map").write_text(f"         0     100000 {mapped:10}\n")
        with accepted("AF_UNIX", user=NOBODY) as unix, accepted(user=NOBODY) as tcp:
            os.seteuid(NOBODY)
            try:
                assert find_peer_user(unix, world_readable) is expected
                assert find_peer_user(tcp, world_readable) is expected
            finally:
                os.seteuid(0)


def test_peer_is_not_trusted_if_there_are_no_free_file_descriptors() -> None:
    with accepted(user=NOBODY) as connection:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (connection.fileno(), hard))
        try:
            assert find_peer_user(connection) is PeerUser.OTHER
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@WAYS
def test_peer_user_is_found_for_each_of_many_connections_at_once(find: FindSocket) -> None:
    """Rows may be left out while the table changes."""
    stop = threading.Event()

    def change_the_table() -> None:
        while not stop.is_set():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
                for client in clients:
                    client.close()

    threads = [threading.Thread(target=change_the_table) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(40):
                with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
                    assert find_peer_user(connection, find=find) is PeerUser.TRUSTED
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- servers --------------------------------------------------------------------------------------

SERVERS = {"development": ["run.py"], "gunicorn": GUNICORN}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers without authentication, and returns their addresses."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    processes: list[subprocess.Popen[bytes]] = []

    def start(server: str, user: int, **settings: str) -> str:
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0IGtleSBmb3IgdGVzdHM=",
            "FLASK_APP_PORT": str(port),
            "GUNICORN_BIND": f"127.0.0.1:{port}",
            "GUNICORN_WORKERS": "1",
            "SQLITE_PATH": str(folder / f"{port}.sqlite3"),
            **settings,
        }
        log = (folder / f"{port}.log").open("wb")
        process = subprocess.Popen(
            as_user(user, sys.executable, *SERVERS[server]),
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        processes.append(process)
        log.close()
        url = settings.get("GUNICORN_BIND", f"http://127.0.0.1:{port}")
        until(lambda: "pong" in fetch(f"{url}/ping", 0) or process.poll() is not None, 60, "the start")
        assert process.poll() is None, Path(log.name).read_text()
        return url

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)
    shutil.rmtree(folder)


def as_user(user: int, *argv: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *argv]


def fetch(url: str, user: int, *options: str) -> str:
    """What a process of that user is answered: the body, and the status in a line of its own."""
    argv = ["curl", "-s", "-m", "20", "-w", "\n%{http_code}", *options]
    if url.startswith("unix:"):
        path, _, rest = url.removeprefix("unix:").partition("socket/")
        argv += ["--unix-socket", f"{path}socket", f"http://localhost/{rest}"]
    else:
        argv.append(url)
    return subprocess.run(as_user(user, *argv), capture_output=True, text=True, check=False).stdout


RECORD = "/monitor/task_uuid/none"  # 400 for a caller that is let in: there is no such task


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_without_authentication_only_the_own_user_and_root_are_served(
    request: pytest.FixtureRequest, serve: Callable[..., str], server: str, owner: int
) -> None:
    python = as_user(owner, sys.executable, "-c", "import flask")
    if subprocess.run(python, capture_output=True, check=False).returncode:
        not_covered(request, "a server of another user", "Python is in a folder of root's")
    url = serve(server, owner)
    assert fetch(url + RECORD, 0).endswith("\n400")
    assert fetch(url + RECORD, owner).endswith("\n400")
    for path in (RECORD, "/slurm/ping", "/notifications"):
        refused = fetch(url + path, DAEMON)
        assert refused.endswith("\n403"), refused
        assert "serves only processes of its own user and of root" in refused
        assert "ACCESS_METHODS=keys" in refused
    assert "pong" in fetch(f"{url}/ping", DAEMON)


@pytest.mark.parametrize("server", SERVERS)
def test_another_user_submits_nothing_without_authentication(serve: Callable[..., str], server: str) -> None:
    url = serve(server, 0)
    body = ["-d", '{"task": {}}']
    assert fetch(f"{url}/submit", NOBODY, *body).endswith("\n403")
    assert fetch(f"{url}/submit", 0, *body).endswith("\n400")


def test_all_local_users_are_served_where_the_operator_wants_it(serve: Callable[..., str]) -> None:
    url = serve("gunicorn", 0, ACCESS_ALL_LOCAL_USERS="true")
    assert fetch(url + RECORD, NOBODY).endswith("\n400")
    for header in ("X-Client-IP: 10.0.0.1", "Host: evil.example", "Origin: http://evil.example"):
        assert fetch(url + RECORD, NOBODY, "-H", header).endswith("\n403")


def test_access_without_authentication_makes_no_other_user_an_operator(serve: Callable[..., str]) -> None:
    url = serve("gunicorn", 0, ACCESS_WITHOUT_PROOF="true")
    assert fetch(url + RECORD, NOBODY).endswith("\n400")
    assert fetch(f"{url}/notifications", NOBODY).endswith("\n403")
    assert fetch(f"{url}/notifications", 0).endswith("\n200")
    for header in ("Host: evil.example", "X-Client-IP: 10.0.0.1"):
        assert fetch(f"{url}/notifications", 0, "-H", header).endswith("\n403")


def test_user_of_a_unix_socket_decides_who_is_an_operator(serve: Callable[..., str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        url = serve("gunicorn", 0, GUNICORN_BIND=f"unix:{folder}/socket", ACCESS_WITHOUT_PROOF="true")
        assert fetch(f"{url}/notifications", 0).endswith("\n200")
        assert fetch(f"{url}/notifications", NOBODY).endswith("\n403")
        assert fetch(url + RECORD, NOBODY).endswith("\n400")


# As nginx 1.29.7 and later are by default: HTTP/1.1, and no header that tells of a proxy.
NGINX = """server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""


@pytest.mark.real
def test_nginx_in_front_of_a_server_without_authentication_is_refused_unless_all_users_are_served(
    request: pytest.FixtureRequest, serve: Callable[..., str]
) -> None:
    try:
        install({"nginx": "nginx"})
    except RealPartMissing as missing:
        not_covered(request, "nginx", str(missing))
    closed, widened = serve("gunicorn", 0), serve("gunicorn", 0, ACCESS_ALL_LOCAL_USERS="true")
    group = grp.getgrgid(NOBODY).gr_name
    for upstream, status in ((closed, "403"), (widened, "400")):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            content = NGINX.format(port=port, upstream=upstream)
            write_main_configuration(Path(folder), f"user nobody {group};", content)
            daemon = make_daemon(Path(folder))
            daemon.start()
            try:
                daemon.ready(partial(answers, port))
                answer = fetch(f"http://127.0.0.1:{port}{RECORD}", 0)
            finally:
                daemon.stop()
        assert answer.endswith(f"\n{status}"), "ACCESS_ALL_LOCAL_USERS serves every client of nginx, too"
