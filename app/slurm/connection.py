"""The one place that speaks HTTP to slurmrestd."""

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from requests_unixsocket.adapters import UnixAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from app.errors import SlurmAmbiguous, SlurmBusy, SlurmUnavailable
from app.slurm.tokens import TokenMint

logger = logging.getLogger(__name__)

# slurmrestd stops answering near 124 connections: each process keeps a few.
_POOL_SIZE = 8
_CHUNK_BYTES = 64 * 1024
# A certificate is verified before anything is sent; any other fault of TLS may come after it.
_NEVER_SENT = (
    NewConnectionError,
    ConnectTimeoutError,
    SSLCertVerificationError,
    ConnectionRefusedError,
    FileNotFoundError,
    PermissionError,
)

_REFUSALS = frozenset(range(2000, 10_000)) - frozenset(range(5000, 6000))

Query = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What slurmrestd answered; `body` is {} where it was no JSON object."""

    status: int
    body: dict[str, Any]
    text: str

    def errors(self) -> list[tuple[int, str]]:
        """Slurm's error numbers and words; each version spells the number in its own way."""
        return [(_number(item), _words(item)) for item in self.body.get("errors") or []]

    def refusals(self) -> list[str]:
        """Slurm's words where it clearly says no: its own errors, not those of the way to it.

        Below 2000 and from 5000 to 5999 are faults of the communication: slurmctld may have taken a job then.
        """
        return [words for number, words in self.errors() if number in _REFUSALS]


def _number(item: dict[str, Any]) -> int:
    for key in ("error_number", "error_code", "errno"):
        if isinstance(item.get(key), int):
            return int(item[key])
    return 0


def _words(item: dict[str, Any]) -> str:
    return str(item.get("error") or item.get("description") or "no reason given")


class Connection:
    """HTTP to one slurmrestd, by TCP, TLS or Unix socket; every call has a time-out."""

    def __init__(
        self,
        host: str,
        tokens: TokenMint,
        *,
        connect_timeout: float,
        read_timeout: float,
        ca_path: Path | None = None,
    ) -> None:
        self.host = host
        self._tokens = tokens
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._free = threading.BoundedSemaphore(_POOL_SIZE)
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc between here and Slurm
        self._session.verify = str(ca_path) if ca_path else True
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=_POOL_SIZE)
        self._session.mount("http://", pool)
        self._session.mount("https://", pool)
        self._base = host
        if host.startswith("unix://"):
            unix = UnixAdapter(timeout=read_timeout)  # type: ignore[no-untyped-call]
            self._session.mount("http+unix://", unix)
            self._base = "http+unix://" + quote(host.removeprefix("unix://"), safe="")

    @property
    def longest_call(self) -> float:
        """Seconds that one request may take: for a free connection, to connect, and to be answered."""
        return 2 * self._connect_timeout + self._read_timeout

    def request(
        self,
        method: str,
        path: str,
        *,
        user: str,
        query: Query = (),
        body: object = None,
        expires: datetime | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """One request as `user`; slurmrestd has `timeout` seconds to answer, or the configured time.

        From `expires` on Slurm takes it no more, however late it arrives.
        SlurmUnavailable if it was never sent, or only asked; SlurmAmbiguous if it may have been carried out.
        """
        headers = self._tokens.headers(user, expires)
        if not self._free.acquire(timeout=self._connect_timeout):
            raise SlurmBusy(f"all connections to slurmrestd at {self.host} are busy")
        try:
            return self._request(method, path, headers, query, body, timeout or self._read_timeout)
        finally:
            self._free.release()

    def _request(
        self, method: str, path: str, headers: dict[str, str], query: Query, body: object, timeout: float
    ) -> Reply:
        deadline = time.monotonic() + self._connect_timeout + timeout
        try:
            with self._session.request(
                method,
                self._base + path,
                params=list(query),
                json=body,
                headers=headers,
                timeout=(self._connect_timeout, timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _whole(response, deadline)
        except requests.RequestException as error:
            if _never_sent(error):
                raise SlurmUnavailable(f"slurmrestd at {self.host} cannot be reached") from error
            words = f"slurmrestd at {self.host} did not answer in time or broke off"
            raise (SlurmUnavailable if method == "GET" else SlurmAmbiguous)(words) from error
        reply = Reply(response.status_code, _json_object(content), content[:500].decode(errors="replace"))
        logger.debug("%s %s as %s: %s", method, path, headers["X-SLURM-USER-NAME"], reply.status)
        return reply

    def close(self) -> None:
        self._session.close()


def _whole(response: requests.Response, deadline: float) -> bytes:
    """The body; the library's own time-out only counts from one packet to the next."""
    content = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        content += chunk
        if time.monotonic() > deadline:
            raise requests.ReadTimeout("the answer did not end in time")
    return bytes(content)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _never_sent(error: BaseException | None) -> bool:
    while error is not None:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(error, _NEVER_SENT) or isinstance(reason, _NEVER_SENT):
            return True
        error = error.__cause__ or error.__context__
    return False
