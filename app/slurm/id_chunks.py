"""Choose how many job ids one request names.

slurmrestd must get the request line and the headers with one read from its socket. If a part arrives later,
it refuses the request (22.05, 24.11, 26.05). On one host a long request arrives as a whole, but a network may
split it. Proxies refuse lines of more than 8,190 bytes by default. Beyond 65,535 bytes, slurmrestd leaves out
ids without an error (24.11, 26.05).
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from app.errors import RequestTooLong, SlurmUnavailable

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

# Ids in one request, each with up to 18 bytes. The first size suits slurmrestd itself, the second most
# proxies, and the last a network that splits requests longer than a packet.
MAX_IDS = 1200
PROXY_SAFE_IDS = 480
_SIZES = (MAX_IDS, PROXY_SAFE_IDS, 160, 50)
_MORE_AFTER = 600.0  # seconds after a refusal until more ids are tried again


class IdChunks:
    """Number of job ids in a request, which falls when requests are refused as too long. Thread-safe."""

    def __init__(self, most: int = MAX_IDS, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the largest requests.

        Args:
            most: The most ids in one request.
            clock: Seconds of a monotonic clock.
        """
        self._sizes = [size for size in _SIZES if size <= most]
        self._clock = clock
        self._step = 0  # the index of the present size; each change is one assignment of a valid index
        self._more_at = 0.0  # when the next larger size is tried

    def split(self, job_ids: Iterable[int]) -> Iterator[list[int]]:
        """Yield the ids of each request. Their number is chosen only when the request is due."""
        left = iter(job_ids)
        while chunk := list(islice(left, self._choose_size())):
            yield chunk

    def ask(
        self, chunk: Sequence[int], request: Callable[[Sequence[int]], _Answer]
    ) -> Iterator[tuple[Sequence[int], _Answer]]:
        """Yield the ids with their answer, in several parts if the request is refused as too long.

        Raises:
            SlurmUnavailable: There was no answer, or even short requests are refused.
        """
        step = self._step
        try:
            yield chunk, request(chunk)
            return
        except RequestTooLong as error:
            if step + 1 == len(self._sizes):
                raise
            self._record_refusal(len(chunk), error)
        has_answer = False
        try:
            for part in self.split(chunk):
                for answered in self.ask(part, request):
                    has_answer = True
                    yield answered
        except SlurmUnavailable:
            if not has_answer:  # the length was not the reason
                self._step = step
            raise

    def _choose_size(self) -> int:
        step = self._step
        if step and self._clock() >= self._more_at:
            self._more_at = self._clock() + _MORE_AFTER
            self._step = step = step - 1
        return self._sizes[step]

    def _record_refusal(self, count: int, error: RequestTooLong) -> None:
        smaller = (step for step, size in enumerate(self._sizes) if size < count)
        self._step = step = next(smaller, len(self._sizes) - 1)
        self._more_at = self._clock() + _MORE_AFTER
        logger.info(
            "a request for %d jobs may be too long (%s): the next ones are for %d",
            count,
            error,
            self._sizes[step],
        )
