"""The discovery of the API version, with threads and without a network."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.slurm.breaker import CircuitBreaker
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.discovery import Discovery
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from tests.conftest import until
from tests.unit.slurm.test_outages import Stage

_THREADS = 20
_OFFERED = SUPPORTED_API_VERSIONS[3]


class Slurmrestd:
    """Answers the first request as soon as all threads wait for the dialect."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_down = False
        self.may_answer = threading.Event()

    def exchange(self, request: SlurmRequest) -> Reply:
        self.asked.append(request.path)
        assert self.may_answer.wait(10)
        if self.is_down:
            raise SlurmUnavailable("slurmrestd cannot be reached")
        return Reply(200 if _OFFERED in request.path else 404, {}, "")


class CountingBreaker(CircuitBreaker):
    """A circuit breaker that counts the failures that are reported to it."""

    reported = 0

    def record_failure(self, *arguments: Any, **fields: Any) -> None:
        self.reported += 1
        super().record_failure(*arguments, **fields)


def find_in_threads(
    find: Callable[[], Dialect], slurmrestd: Slurmrestd
) -> list[Dialect | BaseException | None]:
    """Let many threads need the dialect at the same time; return what each gets, or its error."""
    waiting = threading.Semaphore(0)

    def begin() -> Dialect:
        waiting.release()
        return find()

    with ThreadPoolExecutor(_THREADS) as pool:
        found = [pool.submit(begin) for _ in range(_THREADS)]
        for _ in range(_THREADS):
            waiting.acquire()
        until(lambda: bool(slurmrestd.asked), 5, "the first request")
        slurmrestd.may_answer.set()
        return [item.exception() or item.result() for item in found]


def test_threads_that_need_the_dialect_at_once_share_the_requests_of_one() -> None:
    slurmrestd = Slurmrestd()
    discovery = Discovery("slurm.example")
    assert (
        find_in_threads(lambda: discovery.find(slurmrestd.exchange), slurmrestd)
        == [Dialect(_OFFERED)] * _THREADS
    )
    assert discovery.find(slurmrestd.exchange) == Dialect(_OFFERED)
    assert slurmrestd.asked == [f"/slurm/{api}/ping" for api in SUPPORTED_API_VERSIONS[:4]]


def test_a_discovery_that_fails_is_made_again_by_the_next_thread() -> None:
    slurmrestd = Slurmrestd()
    slurmrestd.is_down = True
    slurmrestd.may_answer.set()
    discovery = Discovery("slurm.example")
    with pytest.raises(SlurmUnavailable):
        discovery.find(slurmrestd.exchange)
    assert discovery.known is None
    slurmrestd.is_down = False
    assert discovery.find(slurmrestd.exchange) == Dialect(_OFFERED)


def test_threads_that_share_a_discovery_share_its_error() -> None:
    slurmrestd = Slurmrestd()
    slurmrestd.is_down = True
    discovery = Discovery("slurm.example")
    errors = find_in_threads(lambda: discovery.find(slurmrestd.exchange), slurmrestd)
    assert all(isinstance(error, SlurmUnavailable) for error in errors)


def test_a_failure_that_threads_share_counts_once_in_the_circuit_breaker() -> None:
    slurmrestd, breaker = Slurmrestd(), CountingBreaker(lambda: None)
    slurmrestd.is_down = True
    wire: Any = SimpleNamespace(host="slurm.example", send=slurmrestd.exchange)
    find_in_threads(Session(wire, "slurm", breaker=breaker).dialect, slurmrestd)
    assert breaker.reported == len(slurmrestd.asked) < _THREADS


def test_the_sessions_of_a_process_discover_the_dialect_once() -> None:
    assert Stage().slurmrestd.asked == ["ping", "partitions", "partitions"]
