"""The rate limit of callers, counted in memory and shared through the store."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import cycle, islice
from pathlib import Path

import pytest

from app.access.request_limit import RequestLimit
from app.errors import StoreUnavailable
from app.store.rate_limiter import RateLimitUse, RateLimitWindow
from app.store.sqlite import SqliteStore
from tests.support.stores import NOW

LIMIT = 600
BATCH = 10


class CountingStore(SqliteStore):
    """A store that counts how often requests are counted in it."""

    writes = 0
    is_full = False

    def add_uses(self, name: str, uses: int, now: datetime, until: datetime) -> RateLimitWindow:
        self.writes += 1
        if self.is_full:
            raise StoreUnavailable("the disk is full")
        return super().add_uses(name, uses, now, until)


class Host:
    """The processes of a host, whose clock stands still."""

    def __init__(self, path: Path) -> None:
        self.time = NOW
        self.store = CountingStore(path, host_clock=lambda: self.time)
        self.store.prepare()

    def admit(self, limits: list[RequestLimit], requests: int) -> int:
        """Return how many of so many requests, which arrive at each process in turn, are admitted."""
        uses = [limit.count("ann") for limit in islice(cycle(limits), requests)]
        return sum(use is not None and use.full_until is None for use in uses)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "store.sqlite3")
    yield host
    host.store.close()


def test_one_process_admits_the_limit_and_seldom_writes(host: Host) -> None:
    limit = RequestLimit(host.store, LIMIT)
    assert host.admit([limit], 2 * LIMIT) == LIMIT
    assert host.store.writes <= LIMIT / BATCH + BATCH, "each batch, and each request of the last one"


def test_threads_of_one_process_admit_the_limit(host: Host) -> None:
    limit = RequestLimit(host.store, LIMIT)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: host.admit([limit], LIMIT), range(8))) == LIMIT


@pytest.mark.parametrize("processes", [2, 4])
def test_each_further_process_exceeds_the_limit_by_less_than_a_batch(host: Host, processes: int) -> None:
    limits = [RequestLimit(host.store, LIMIT) for _ in range(processes)]
    admitted = host.admit(limits, 2 * LIMIT)
    assert LIMIT <= admitted <= LIMIT + (processes - 1) * (BATCH - 1)
    assert host.store.writes <= admitted / BATCH + 2 * processes * BATCH


def test_a_small_limit_is_exact_over_all_processes(host: Host) -> None:
    limits = [RequestLimit(host.store, 119) for _ in range(3)]
    assert host.admit(limits, 300) == 119


def test_a_full_window_costs_the_store_nothing_until_it_ends(host: Host) -> None:
    limit = RequestLimit(host.store, 5)
    host.admit([limit], 5)
    host.store.writes = 0
    ends = NOW + timedelta(minutes=1)
    assert [limit.count("ann") for _ in range(20)] == [RateLimitUse(0, ends)] * 20
    assert host.store.writes == 0
    host.time = ends
    assert host.admit([limit], 20) == 5


def test_a_full_window_that_ends_later_than_possible_is_replaced(host: Host) -> None:
    limit = RequestLimit(host.store, 5)
    host.admit([limit], 6)
    host.time = NOW - timedelta(hours=1)
    assert host.admit([limit], 6) == 5, "the clock was set back"


def test_what_is_left_contains_what_this_process_has_not_shared(host: Host) -> None:
    here, there = RequestLimit(host.store, LIMIT), RequestLimit(host.store, LIMIT)
    assert here.count_left("ann") == LIMIT
    assert host.admit([here], 5) == 5
    assert here.count_left("ann") == LIMIT - 5
    assert there.count_left("ann") == LIMIT - 5
    assert host.admit([there], 3 * BATCH) == 3 * BATCH
    left = here.count_left("ann")
    assert left is not None
    assert 3 * BATCH - (BATCH - 1) <= LIMIT - 5 - left <= 3 * BATCH, "all but an unshared batch"


def test_callers_are_counted_separately(host: Host) -> None:
    limit = RequestLimit(host.store, 2)
    uses = [limit.count(name) for name in ("ann", "bob", "ann", "bob")]
    assert uses == [RateLimitUse(left) for left in (1, 1, 0, 0)]


def test_requests_are_not_counted_for_a_while_if_the_store_cannot_be_written(host: Host) -> None:
    """Threads that wait for the store when it fails do not try it one after the other."""
    limit = RequestLimit(host.store, 5)
    host.store.is_full = True
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: limit.count("ann"), range(8))) == [None] * 8
    assert limit.count_left("ann") is None
    assert host.store.writes == 1
