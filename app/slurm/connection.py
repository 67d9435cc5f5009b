"""HTTP connections to slurmrestd; every request to slurmrestd passes through this module."""

import logging
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from app.errors import SlurmAmbiguous, SlurmAnswerTooLarge, SlurmBusy, SlurmProxyError, SlurmUnavailable
from app.metrics import SLURM_REQUEST_SECONDS, SLURM_REQUESTS, Metrics
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from app.slurm.transport import AnswerTooLarge, limited, make_pool_classes, make_tls_context

logger = logging.getLogger(__name__)

# slurmrestd stops answering near 124 connections: each process keeps a few.
CONNECTIONS = 8
_CHUNK_BYTES = 64 * 1024
_MEGABYTE = 1024 * 1024
# A job is about 10 kB, and slurmctld keeps 10,000 of them by default: 100 MB. This is for 50,000.
_MAX_LIST_BYTES = 512 * _MEGABYTE
_MAX_ANSWER_BYTES = 16 * _MEGABYTE  # of other answers; the largest is slurmrestd's OpenAPI document, 2 MB
# No compression: a small answer could be inflated to any size.
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "slurm-proxy",
}


class Connection:
    """HTTP connections to one slurmrestd, by TCP, TLS or Unix socket.

    Every request has one deadline and one size limit.
    """

    def __init__(
        self,
        host: str,
        tokens: TokenMint,
        *,
        connect_timeout: float,
        read_timeout: float,
        ca_path: Path | None = None,
        connections: int = CONNECTIONS,
        metrics: Metrics | None = None,
    ) -> None:
        """Make a pool of connections, which is empty at first.

        Args:
            host: The address of slurmrestd: http://, https:// or unix://.
            tokens: Makes the token of each request.
            connect_timeout: Seconds to wait for a free connection, and to connect.
            read_timeout: Seconds that slurmrestd has to answer.
            ca_path: The certificates of the authorities to trust, in place of the usual ones.
            connections: How many requests may be under way at a time.
            metrics: Where requests are counted.
        """
        self.host = strip_login(host)  # for messages
        self._tokens = tokens
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._metrics = metrics or Metrics()
        self._free = threading.BoundedSemaphore(connections)
        self._verify: bool | str = str(ca_path) if ca_path else True
        is_unix = host.startswith("unix://")
        self._adapter = _Adapter(host.removeprefix("unix://") if is_unix else None)
        self._base = "http://localhost" if is_unix else host

    @property
    def max_call_seconds(self) -> float:
        """Return the seconds that one request may take: for a free connection, to connect, to be answered.

        Only the resolution of the host's name can take longer; nothing is sent after the deadline.
        """
        return 2 * self._connect_timeout + self._read_timeout

    def send(self, request: SlurmRequest) -> Reply:
        """Make one request, and return its answer.

        Raises:
            SlurmBusy: All connections are in use.
            SlurmUnavailable: The request was not sent, or was a GET without a complete answer.
            SlurmAnswerTooLarge: The answer to a GET is too large.
            SlurmAmbiguous: A request that is no GET has no complete answer; it may have been carried out.
        """
        headers = self._tokens.make_headers(request.user, request.expires)
        outcome = "busy"
        try:
            if not self._free.acquire(timeout=self._connect_timeout):
                raise SlurmBusy("all connections to slurmrestd are busy")
            outcome = "unanswered"
            try:
                with self._metrics.timing(SLURM_REQUEST_SECONDS, request.kind):
                    reply = self._send(request, headers)
            finally:
                self._free.release()
            outcome = "ok" if reply.status < 400 else "error"
            return reply
        finally:
            self._metrics.count(SLURM_REQUESTS, request.kind, outcome)

    def _send(self, request: SlurmRequest, headers: dict[str, str]) -> Reply:
        prepared = requests.Request(
            request.method,
            self._base + request.path,
            {**headers, **_HEADERS},
            params=list(request.query),
            json=request.body,
        ).prepare()
        is_list = request.method == "GET" and any(word in request.path for word in ("/job", "/nodes"))
        timeout = request.timeout or self._read_timeout
        seconds = self._connect_timeout + timeout
        max_bytes = request.max_bytes or (_MAX_LIST_BYTES if is_list else _MAX_ANSWER_BYTES)
        with limited(seconds, max_bytes) as allowance:
            try:
                reply = self._exchange(prepared, timeout)
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                raise _failure(request.method, error, has_sent=allowance.has_sent) from error
        logger.debug("%s %s as %s: %s", request.method, request.path, request.user, reply.status)
        return reply

    def _exchange(self, request: requests.PreparedRequest, timeout: float) -> Reply:
        """Send a request, without the proxies, .netrc, cookies and redirects of a `requests` session."""
        with self._adapter.send(
            request, stream=True, timeout=(self._connect_timeout, timeout), verify=self._verify
        ) as response:
            if response.status_code < 200:  # the real answer would be taken for that of the next request
                response.raw.close()
                raise ValueError(f"status {response.status_code} where an answer was due")
            content = b"".join(response.raw.stream(_CHUNK_BYTES, decode_content=False))
            return Reply.read(response.status_code, content, response.headers.get("Content-Encoding"))

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()


def strip_login(address: str) -> str:
    """Return an address without the user and the password in it."""
    if address.startswith("unix://"):
        return address
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _Adapter(HTTPAdapter):
    """Adapter whose connections keep the deadline and the size limit of their request."""

    def __init__(self, unix_path: str | None) -> None:
        self._unix_path = unix_path
        super().__init__(pool_connections=1, pool_maxsize=CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=make_tls_context(), **options)
        self.poolmanager.pool_classes_by_scheme = make_pool_classes(self._unix_path)


def _failure(method: str, error: Exception, *, has_sent: bool) -> SlurmProxyError:
    """Return the error for a request without a complete answer."""
    if not has_sent:
        return SlurmUnavailable("slurmrestd cannot be reached")
    if _is_too_large(error):
        words = "the answer of slurmrestd is too large"
        return SlurmAnswerTooLarge(words) if method == "GET" else SlurmAmbiguous(words)
    words = "slurmrestd did not answer in time or broke off"
    return SlurmUnavailable(words) if method == "GET" else SlurmAmbiguous(words)


def _is_too_large(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, AnswerTooLarge):
        error = error.__cause__ or error.__context__
    return error is not None
