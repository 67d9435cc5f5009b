"""Find the origin of a request: this machine or another one, and the proxies in between."""

import ipaddress
import re
import socket
from collections.abc import Sequence

from flask import request

from app.connections.client_socket import ClientSocket, find_request_socket
from app.connections.peer_user import PeerUser, find_peer_user
from app.constants import Settings
from app.setting_values import UNIX_SOCKET, is_loopback

# Headers that proxies, load balancers and tunnels add: the beginnings of their names.
_PROXY_HEADERS = (
    "cdn-loop",
    "cf-",
    "client-ip",
    "fastly-",
    "fly-",
    "forwarded",
    "ngrok-",
    "tailscale-",
    "true-client-ip",
    "via",
    "wl-proxy-",
    "x-amz",
    "x-appengine-",
    "x-arr-",
    "x-azure-",
    "x-client-ip",
    "x-cloud-trace-context",
    "x-cluster-",
    "x-envoy-",
    "x-forward",
    "x-original-",
    "x-originating-",
    "x-proxy",
    "x-real-ip",
    "x-remote-",
)
_NOT_DIRECT = (
    "without authentication this server answers only direct requests of its own machine to localhost"
)
_OTHER_USER = (
    "without authentication this server serves only processes of its own user and of root; its operator can"
    " make keys (ACCESS_METHODS=keys), or let all local users in (ACCESS_ALL_LOCAL_USERS=true)"
)


def explain_not_local(settings: Settings) -> str | None:
    """Return the reason why a request is not local; None for a local request.

    A local request comes from a process of the server's own user or of root on this machine, or of any user
    with ACCESS_ALL_LOCAL_USERS. Where the system does not show the user, every process of the machine counts.
    Another name than this machine's in `Host` is that of a web page that uses DNS rebinding.
    """
    client = find_request_socket(request.environ)
    is_unix = _is_unix(client)
    if is_proxied() or not _is_loopback_host() or not (is_unix or is_loopback(request.remote_addr or "")):
        return _NOT_DIRECT
    peer = _peer_user(client)
    if peer is PeerUser.UNKNOWN:
        return _NOT_DIRECT if is_unix else None
    return None if peer is PeerUser.TRUSTED or settings.ACCESS_ALL_LOCAL_USERS else _OTHER_USER


def find_client_address(settings: Settings) -> str:
    """Return the client's address, as reported by trusted proxies; `-` for a client without an address.

    Each trusted proxy appends the address of its own client to `X-Forwarded-For`, so the header is read from
    its end. What an untrusted client has written at its beginning is never reached.
    """
    address = _peer_address()
    if settings.ACCESS_TRUSTED_PROXIES:
        passed_on = ",".join(request.headers.getlist("X-Forwarded-For")).split(",")
        while passed_on and _is_trusted_proxy(address, settings.ACCESS_TRUSTED_PROXIES):
            if (found := _ip_address(passed_on.pop().strip())) is None:
                break
            address = str(found)
    return "-" if address in ("", UNIX_SOCKET) else address


def find_request_scheme(settings: Settings) -> str:
    """Return the scheme of the client's request, as reported by a trusted proxy in `X-Forwarded-Proto`."""
    passed_on = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
    is_passed_on = passed_on in ("http", "https")
    if is_passed_on and _is_trusted_proxy(_peer_address(), settings.ACCESS_TRUSTED_PROXIES):
        return passed_on
    return request.scheme


def _peer_address() -> str:
    """Return the address of the peer, or UNIX_SOCKET: a client of a Unix socket may choose its own name."""
    return UNIX_SOCKET if _is_unix(find_request_socket(request.environ)) else request.remote_addr or ""


def _is_trusted_proxy(address: str, trusted: Sequence[str]) -> bool:
    if address == UNIX_SOCKET:
        return UNIX_SOCKET in trusted
    found = _ip_address(address)
    networks = (ipaddress.ip_network(word, strict=False) for word in trusted if word != UNIX_SOCKET)
    return found is not None and any(found in network for network in networks)


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address in a text without its zone, an IPv4-mapped one as IPv4; None if there is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _is_unix(client: socket.socket | None) -> bool:
    return client is not None and client.family == socket.AF_UNIX


def is_proxied() -> bool:
    """Return whether the headers of the request show a proxy.

    nginx before 1.29.7 is recognised by HTTP/1.0 alone, unless its configuration adds a header.
    """
    is_old = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
    return is_old or any(name.lower().startswith(_PROXY_HEADERS) for name, _ in request.headers)


def _is_loopback_host() -> bool:
    return is_loopback(re.sub(r":\d*\Z", "", request.host).strip("[]"))


def _peer_user(client: socket.socket | None) -> PeerUser:
    if client is None:
        return PeerUser.UNKNOWN
    return client.peer_user if isinstance(client, ClientSocket) else find_peer_user(client)
