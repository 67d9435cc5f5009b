"""One HTTP request, with one deadline and one size limit for its whole answer, by the operator's proxy."""

import base64
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from app.senders.deadline import MAX_ANSWER, Deadline


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    reason: str
    headers: HTTPMessage
    content: bytes


def exchange(
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
    """Return what the server answers; redirects are not followed, and what is compressed stays so.

    The proxy is that of HTTPS_PROXY or HTTP_PROXY unless `proxy` names one; NO_PROXY is honoured either way.
    Without `has_content` the body is not read.

    Raises:
        OSError: There is no whole answer. The request may have been carried out.
    """
    parts = urlsplit(url)
    try:
        by = _proxy_for(parts, proxy)
        connection = _connection(deadline, parts, by, timeout, trust)
        target, headers = urlunsplit(("", "", parts.path or "/", parts.query, "")), dict(headers)
        if by is not None and parts.scheme == "http":
            target = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))
            headers |= _login(by)
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as answer:
                content = _content(answer) if has_content else b""
                return Answer(answer.status, answer.reason, answer.headers, content)
        finally:
            connection.close()
    except (HTTPException, ValueError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _content(answer: HTTPResponse) -> bytes:
    content = answer.read(MAX_ANSWER + 1)
    if len(content) > MAX_ANSWER:
        raise OSError(f"the answer is longer than {MAX_ANSWER} bytes")
    if answer.length:  # bytes that are missing
        raise OSError("the answer broke off")
    return content


def _connection(
    deadline: Deadline, parts: SplitResult, by: SplitResult | None, timeout: float, trust: ssl.SSLContext
) -> HTTPConnection:
    """Return a connection that is not open yet, to the server or by the proxy."""
    connection: Any
    if parts.scheme == "https":
        connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=trust)
        if by is not None:
            connection.set_tunnel(connection.host, connection.port, _login(by))
    else:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    host, port = (by.hostname or "", by.port or 80) if by else (connection.host, connection.port)

    def connect(*_: object) -> socket.socket:
        return deadline.connect(host, port, timeout)

    connection._create_connection = connect  # CONNECT and TLS come after it
    return connection  # type: ignore[no-any-return]


def _proxy_for(parts: SplitResult, given: str | None) -> SplitResult | None:
    """Return the proxy on the way to that URL. Proxies are spoken to without TLS, as urllib does."""
    address = given or getproxies().get(parts.scheme)
    if not address or proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise OSError(f"the proxy is not one that speaks HTTP: {proxy.scheme}://{proxy.hostname or ''}")
    return proxy


def _login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
