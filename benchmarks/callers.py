"""Many callers, each of whom sends the same request once a second."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.http_connection import decode_head
from benchmarks.http_server import read_message

INTERVAL = 1.0  # seconds between two requests of one caller
_TIMEOUT = 30.0


@dataclass
class HerdResult:
    """Answers that the callers got.

    Attributes:
        expected: How many requests there would be if each caller were answered within a second.
        times: Seconds until each answer with status 200.
        failed: How many requests had another answer, or none.
    """

    expected: int
    times: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def served(self) -> float:
        """Return the share of the expected requests that were answered with status 200."""
        return len(self.times) / self.expected


def run_herd(url: str, requests: Sequence[bytes], seconds: float, max_connections: int) -> HerdResult:
    """Let one caller for each request send it once a second, on a new connection each time.

    A caller who waits longer than a second for an answer sends the next request right after it. What is not
    answered at the end is not served.

    Args:
        url: The address of the server.
        requests: One encoded request for each caller.
        seconds: How long the callers ask.
        max_connections: How many connections there are at a time; further callers wait for a free one.
    """
    result = HerdResult(round(len(requests) * seconds / INTERVAL))
    asyncio.run(_ask_all(url, requests, seconds, max_connections, result))
    return result


async def _ask_all(
    url: str, requests: Sequence[bytes], seconds: float, max_connections: int, result: HerdResult
) -> None:
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    connections = asyncio.Semaphore(max_connections)
    end = time.monotonic() + seconds

    async def call(request: bytes) -> None:
        await asyncio.sleep(random.uniform(0, INTERVAL))  # noqa: S311 - spreads the callers, no secret
        while (began := time.monotonic()) < end:
            try:
                async with connections:
                    status = await asyncio.wait_for(_ask(address, request), _TIMEOUT)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                status = 0
            if status == 200:
                result.times.append(time.monotonic() - began)
            else:
                result.failed += 1
            await asyncio.sleep(max(0.0, began + INTERVAL - time.monotonic()))

    tasks = [asyncio.create_task(call(request)) for request in requests]
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(address: tuple[str, int], request: bytes) -> int:
    """Send one request on a new connection, and return the status of the answer."""
    reader, writer = await asyncio.open_connection(*address, limit=2**20)
    try:
        writer.write(request)
        answer = await read_message(reader)
        return decode_head(answer.partition(b"\r\n\r\n")[0])[0]
    finally:
        writer.close()
