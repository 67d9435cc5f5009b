"""HTTP connections to slurmrestd; every request to slurmrestd passes through this module."""

import json
import logging
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from urllib3 import Retry, Timeout, make_headers
from urllib3.exceptions import HTTPError, IncompleteRead

from app.errors import (
    RequestTooLong,
    SettingsError,
    SlurmAmbiguous,
    SlurmAnswerTooLarge,
    SlurmBusy,
    SlurmProxyError,
    SlurmReadAborted,
    SlurmUnavailable,
)
from app.metrics import SLURM_REQUEST_SECONDS, SLURM_REQUESTS, Metrics
from app.slurm.busy_time import BusyTime
from app.slurm.pending_reads import PendingReads
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from app.slurm.transport import AnswerTooLarge, limited, make_pool

logger = logging.getLogger(__name__)

# slurmrestd stops answering near 124 connections: each process keeps a few.
CONNECTIONS = 8
_CHUNK_BYTES = 64 * 1024
_MEGABYTE = 1024 * 1024
# A job is about 10 kB, and slurmctld keeps 10,000 of them by default: 100 MB. This is for 50,000.
_MAX_LIST_BYTES = 512 * _MEGABYTE
_MAX_ANSWER_BYTES = 16 * _MEGABYTE  # of other answers; the largest is slurmrestd's OpenAPI document, 2 MB
# With the headers, a longer target takes more than one packet of Ethernet, 1,448 bytes: see id_chunks.
_MAX_PACKET_TARGET = 1000
# Answers of proxies to a request that is too long, and of slurmrestd (22.05, 24.11) to a request of which a
# part arrives late: 401 if the token is in that part.
_REFUSALS_OF_LENGTH = frozenset({400, 401, 413, 414, 431})
# No compression: a small answer could be inflated to any size.
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "slurm-proxy",
}
_NO_RETRIES = Retry(False, redirect=False)  # a POST that is sent twice may be two jobs


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

        Raises:
            SettingsError: The address is not valid.
        """
        self.host = strip_login(host)  # for messages
        self._tokens = tokens
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._metrics = metrics or Metrics()
        self._free = threading.BoundedSemaphore(connections)
        self.busy_time = BusyTime()
        self._pending_reads = PendingReads()
        try:
            self._headers = {**_HEADERS, **_make_login_header(host)}
            self._pool = make_pool(host, ca_path, connections)
        except ValueError as error:
            raise SettingsError(f"SLURM_REST_HOST: {self.host} is not a valid address: {error}") from error
        self._prefix = "" if host.startswith("unix://") else urlsplit(host).path

    @property
    def max_call_seconds(self) -> float:
        """Return the seconds that one request may take: for a free connection, to connect, to be answered.

        Only the resolution of the host's name can take longer; nothing is sent after the deadline.
        """
        return 2 * self._connect_timeout + self._read_timeout

    @property
    def read_timeout(self) -> float:
        """Return the seconds that slurmrestd has to answer a request."""
        return self._read_timeout

    def abort_reads(self) -> None:
        """End the GETs that wait for slurmctld at once, as requests without an answer."""
        self._pending_reads.abort()

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

    def _send(self, request: SlurmRequest, token: dict[str, str]) -> Reply:
        is_list = request.method == "GET" and any(word in request.path for word in ("/job", "/nodes"))
        timeout = request.timeout or self._read_timeout
        seconds = self._connect_timeout + timeout
        max_bytes = request.max_bytes or (_MAX_LIST_BYTES if is_list else _MAX_ANSWER_BYTES)
        target = request.target
        is_long = request.method == "GET" and len(target) > _MAX_PACKET_TARGET
        with limited(seconds, max_bytes) as allowance, self._pending_reads.listing(request, allowance):
            try:
                reply = self._exchange(request, target, token, timeout)
            except (HTTPError, OSError, ValueError) as error:
                if allowance.is_aborted:
                    raise SlurmReadAborted("the request was ended because of an outage of Slurm") from error
                if is_long and allowance.has_sent and _is_broken_off(error):
                    raise RequestTooLong("slurmrestd closed the connection") from error
                raise _failure(request.method, error, has_sent=allowance.has_sent) from error
        if is_long and _is_refusal_of_length(reply):
            raise RequestTooLong(f"slurmrestd answered {reply.full_complaint()}")
        logger.debug("%s %s as %s: %s", request.method, request.path, request.user, reply.status)
        return reply

    def _exchange(self, request: SlurmRequest, target: str, token: dict[str, str], timeout: float) -> Reply:
        """Send a request once, and read its answer; a pool of urllib3 knows no proxy, cookie or .netrc."""
        headers = token | self._headers
        body = None
        if request.body is not None:
            body = json.dumps(request.body, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        elif request.method != "GET":
            headers["Content-Length"] = "0"
        with (
            self.busy_time,
            self._pool.urlopen(
                request.method,
                self._prefix + target,
                body,
                headers,
                retries=_NO_RETRIES,
                redirect=False,
                timeout=Timeout(connect=self._connect_timeout, read=timeout),
                preload_content=False,
                decode_content=False,
            ) as response,  # leaving closes the connection if the answer was not read to its end
        ):
            if response.status < 200:  # the real answer would be taken for that of the next request
                raise ValueError(f"status {response.status} where an answer was due")
            content = b"".join(response.stream(_CHUNK_BYTES, decode_content=False))
        return Reply.read(response.status, content, response.headers.get("Content-Encoding"))

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def strip_login(address: str) -> str:
    """Return an address without the user and the password in it."""
    if address.startswith("unix://"):
        return address
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _make_login_header(host: str) -> dict[str, str]:
    """Return the header with the user and the password in an address, if both are there.

    Raises:
        ValueError: They have characters that a header cannot have.
    """
    parts = urlsplit(host)
    if host.startswith("unix://") or parts.username is None or parts.password is None:
        return {}
    return dict(make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password)}"))


def _failure(method: str, error: Exception, *, has_sent: bool) -> SlurmProxyError:
    """Return the error for a request without a complete answer."""
    if not has_sent:
        return SlurmUnavailable("slurmrestd cannot be reached")
    if _has_cause(error, (AnswerTooLarge,)):
        words = "the answer of slurmrestd is too large"
        return SlurmAnswerTooLarge(words) if method == "GET" else SlurmAmbiguous(words)
    words = "slurmrestd did not answer in time or broke off"
    return SlurmUnavailable(words) if method == "GET" else SlurmAmbiguous(words)


def _is_refusal_of_length(reply: Reply) -> bool:
    """Return whether an answer may mean that the request is too long.

    26.05 answers 500 with a text, and a proxy 502 to an answer such as "HTTP/0.9 400" of 24.11. 504 is the
    time-out of a proxy.
    """
    is_server_error = reply.status >= 500 and reply.status != 504
    return reply.status in _REFUSALS_OF_LENGTH or (is_server_error and bool(reply.fault))


def _is_broken_off(error: BaseException) -> bool:
    """Return whether the connection ended before the answer did, within the time-out."""
    return _has_cause(error, (ConnectionError, IncompleteRead))


def _has_cause(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    return error is not None
