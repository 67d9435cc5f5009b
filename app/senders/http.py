"""Send one HTTP request, by the operator's proxy, with a deadline and a size limit for the whole answer."""

import base64
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from time import time
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from app.senders.deadline import MAX_ANSWER, Deadline

_MAX_RETRY_AFTER_SECONDS = 31_536_000.0  # a year, far beyond every retry deadline


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; `content` is empty if no content was read."""

    status: int
    reason: str
    headers: HTTPMessage
    content: bytes


def send_request(
    deadline: Deadline,
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float,
    trust: ssl.SSLContext,
    proxy: str | None = None,
    has_content: bool = True,
) -> Answer:
    """Send a request and return the answer. Redirects are not followed, and no content is decompressed.

    The proxy is that of HTTPS_PROXY or HTTP_PROXY unless `proxy` names one; NO_PROXY applies to both.
    Without `has_content` the body of the answer is not read.

    Raises:
        OSError: No complete answer came. The request may have been carried out.
    """
    parts = urlsplit(url)
    try:
        proxy_url = _find_proxy(parts, proxy)
        connection = _build_connection(deadline, parts, proxy_url, timeout, trust)
        target, headers = urlunsplit(("", "", parts.path or "/", parts.query, "")), dict(headers)
        if proxy_url is not None and parts.scheme == "http":
            target = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))
            headers |= _proxy_authorization(proxy_url)
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as answer:
                content = _read_content(answer) if has_content else b""
                return Answer(answer.status, answer.reason, answer.headers, content)
        finally:
            connection.close()
    except (HTTPException, ValueError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def parse_retry_after(retry_after: str | None) -> float | None:
    """Return the seconds from now that a `Retry-After` header asks for; None if unreadable.

    The header has seconds or a date (RFC 9110, 10.2.3).
    """
    if retry_after is None:
        return None
    value = retry_after.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_tz(value)
        return None if moment is None else min(max(0.0, mktime_tz(moment) - time()), _MAX_RETRY_AFTER_SECONDS)
    except (ValueError, OverflowError):  # a date that does not exist
        return None


def _read_content(answer: HTTPResponse) -> bytes:
    # Into one buffer: read() keeps an object of its own for each chunk, and a chunk may be one byte.
    buffer = memoryview(bytearray(MAX_ANSWER + 1))
    length = 0
    while read := answer.readinto(buffer[length:]):
        length += read
    if length > MAX_ANSWER:
        raise OSError(f"the answer is longer than {MAX_ANSWER} bytes")
    if answer.length:  # bytes that are missing
        raise OSError("the answer broke off")
    return bytes(buffer[:length])


def _build_connection(
    deadline: Deadline, parts: SplitResult, proxy: SplitResult | None, timeout: float, trust: ssl.SSLContext
) -> HTTPConnection:
    """Return a connection that is not open yet, to the server itself or through the proxy."""
    connection: Any
    if parts.scheme == "https":
        connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=trust)
        if proxy is not None:
            connection.set_tunnel(connection.host, connection.port, _proxy_authorization(proxy))
    else:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (connection.host, connection.port)

    def connect(*_: object) -> socket.socket:
        return deadline.connect(host, port, timeout)

    connection._create_connection = connect  # called before CONNECT and TLS
    return connection  # type: ignore[no-any-return]


def _find_proxy(parts: SplitResult, given: str | None) -> SplitResult | None:
    """Return the proxy for that URL, or None. The connection to a proxy has no TLS, as in urllib."""
    address = given or getproxies().get(parts.scheme)
    if not address or proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise OSError(f"the proxy must be an HTTP proxy, not {proxy.scheme}://")
    return proxy


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
