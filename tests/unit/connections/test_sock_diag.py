"""What the kernel says about single sockets."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.connections.sock_diag import find_socket
from tests.conftest import not_covered


@contextmanager
def connected(
    host: str = "127.0.0.1", bind: str = "127.0.0.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection, the listener's first."""
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        listener = stack.enter_context(
            socket.create_server((bind, 0), family=family, dualstack_ipv6=":" in bind)
        )
        client = stack.enter_context(socket.create_connection((host, listener.getsockname()[1])))
        server = stack.enter_context(listener.accept()[0])
        yield server, client


@pytest.fixture(autouse=True)
def _with_netlink(request: pytest.FixtureRequest) -> None:
    with connected() as (server, _):
        if find_socket(server.getsockname(), server.getpeername()) is None:
            not_covered(request, "netlink", "the kernel does not answer its questions")


@pytest.mark.parametrize(
    ("host", "bind"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::"), ("127.0.0.1", "::"), ("::ffff:127.0.0.1", "::")],
)
def test_both_ends_of_a_connection_have_their_user_and_inode(host: str, bind: str) -> None:
    with connected(host, bind) as ends:
        for end in ends:
            own, other = end.getsockname()[:2], end.getpeername()[:2]
            assert find_socket(own, other) == (os.geteuid(), os.fstat(end.fileno()).st_ino)


def test_a_listening_socket_is_not_taken_for_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert find_socket(listener.getsockname(), ("127.0.0.1", 1)) is None


def test_a_socket_that_its_process_has_closed_has_no_inode() -> None:
    with connected() as (server, client):
        own, other = client.getsockname(), client.getpeername()
        client.close()
        assert find_socket(own, other) == (0, 0)
        server.close()
        assert find_socket(own, other) in (None, (0, 0))  # for a minute the kernel keeps its addresses


@pytest.mark.parametrize("host", ["", "localhost", "fe80::1%eth0", "1.2.3.4"])
def test_no_socket_is_found_for_unused_addresses(host: str) -> None:
    assert find_socket((host, 1), (host, 2)) is None
    assert find_socket((host, 100_000), (host, -1)) is None
