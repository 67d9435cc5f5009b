"""A gateway in front of slurmrestd, in a process of its own: measures its load, and fails on demand."""

import asyncio
import multiprocessing
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any, Self
from urllib.parse import urlsplit

from app.slurm.busy_time import BusyTime
from benchmarks.http_server import (
    MAX_MESSAGE,
    answer_requests,
    encode_answer,
    listen,
    read_message,
    serve,
    split_request,
)

KINDS = ("job", "jobs/state", "jobs", "slurmdb", "submit", "other")
_DOWN = {"errors": [{"error_number": 1800, "error": "Unable to contact slurm controller"}]}


class Fault(IntEnum):
    """Fault that requests meet."""

    NONE = auto()
    HANG = auto()  # they are read and never answered
    CONTROLLER_DOWN = auto()  # slurmrestd answers 502 after a while, and a ping at once, as 24.11 does


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests by kind, the bytes of all answers, and the seconds in which slurmrestd had a request."""

    requests: Mapping[str, int]
    answer_bytes: int
    busy_seconds: float

    @property
    def total(self) -> int:
        """Return the number of all requests."""
        return sum(self.requests.values())

    def __sub__(self, earlier: "Traffic") -> "Traffic":
        """Return what came since an earlier reading."""
        requests = {kind: count - earlier.requests[kind] for kind, count in self.requests.items()}
        return Traffic(
            requests, self.answer_bytes - earlier.answer_bytes, self.busy_seconds - earlier.busy_seconds
        )


class Gateway:
    """Enter it to have `url`."""

    def __init__(self, target: str, delay: float = 9.0) -> None:
        """Lead to slurmrestd at `target`.

        Args:
            target: The address of slurmrestd.
            delay: Seconds after which slurmrestd answers while slurmctld is down.
        """
        context = multiprocessing.get_context("spawn")
        self._counts = context.Array("q", len(KINDS) + 2)
        self._fault = context.Value("i", Fault.NONE)
        self._listener, self.url = listen()
        arguments = (self._listener, target, delay, self._counts, self._fault)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._listener.close()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join(10)

    def fail(self, fault: Fault) -> None:
        """Let requests fail from now on, or no longer."""
        self._fault.value = fault

    def read_traffic(self) -> Traffic:
        """Return the traffic since the start."""
        *counts, answer_bytes, busy_microseconds = self._counts[:]
        return Traffic(dict(zip(KINDS, counts, strict=True)), answer_bytes, busy_microseconds / 1e6)


def find_kind(method: str, target: str) -> str:
    """Return the kind of a request, one of KINDS."""
    path = target.partition("?")[0].strip("/")
    if path.startswith("slurmdb/"):
        return "slurmdb"
    route = re.sub(r"^slurm/[^/]+/", "", path)
    if method == "POST" and route == "job/submit":
        return "submit"
    if method == "GET" and route.startswith("job/"):
        return "job"
    return route if method == "GET" and route in KINDS else "other"


def _serve(listener: socket.socket, target: str, delay: float, counts: Any, fault: Any) -> None:
    serve(listener, _Handler(target, delay, counts, fault).handle)


class _Handler:
    def __init__(self, target: str, delay: float, counts: Any, fault: Any) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._delay = delay
        self._counts = counts
        self._fault = fault
        self._busy = BusyTime()

    async def handle(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Pass the requests of one connection on, each on the same connection to slurmrestd."""
        try:
            source, upstream = await asyncio.open_connection(*self._target, limit=MAX_MESSAGE)
        except OSError:  # slurmrestd itself is down
            writer.close()
            return

        async def answer(request: bytes) -> bytes:
            method, target, _ = split_request(request)
            self._counts[KINDS.index(find_kind(method, target))] += 1
            reply = await self._fail(target)
            if reply is None:
                with self._busy:
                    upstream.write(request)
                    await upstream.drain()
                    reply = await read_message(source)
            self._counts[len(KINDS)] += len(reply)
            self._counts[len(KINDS) + 1] = round(1e6 * self._busy.seconds)
            return reply

        try:
            await answer_requests(reader, writer, answer)
        finally:
            upstream.close()

    async def _fail(self, target: str) -> bytes | None:
        """Return the answer of a slurmrestd whose slurmctld is down; None if there is no fault."""
        if self._fault.value == Fault.HANG:
            while self._fault.value == Fault.HANG:
                await asyncio.sleep(0.05)
            raise ConnectionResetError
        if self._fault.value == Fault.NONE:
            return None
        if target.endswith("/ping"):
            return encode_answer(200, {"pings": [{"pinged": "DOWN"}], "errors": []})
        await asyncio.sleep(self._delay)
        return encode_answer(502, _DOWN)
