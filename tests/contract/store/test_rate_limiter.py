"""Rate limits, in every store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from app.store import TaskStore
from app.store.rate_limiter import RateLimitWindow
from tests.support.stores import ANN, LATER, NOW, Factory


def test_a_window_admits_its_limit_and_returns_when_it_ends(store: TaskStore) -> None:
    ends = NOW + timedelta(minutes=10)
    assert [store.acquire(ANN, 2, NOW, ends).full_until for _ in range(3)] == [None, None, ends]
    assert store.acquire("email:bob@example.com", 2, NOW, ends).full_until is None
    assert (
        store.acquire(ANN, 2, ends - timedelta(milliseconds=1), ends + timedelta(minutes=10)).full_until
        == ends
    )
    assert store.acquire(ANN, 2, ends, ends + timedelta(minutes=10)).full_until is None


@pytest.mark.parametrize("seconds", [60, 100, 180, 240, 3600])
def test_a_window_that_ends_later_than_it_can_is_begun_anew_and_logged(
    store: TaskStore, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    """The clock of the process that began it was ahead, or has been set back since."""
    minute, ahead = timedelta(minutes=1), timedelta(seconds=seconds)
    for _ in range(2):
        store.acquire(ANN, 1, NOW + ahead, NOW + ahead + minute)
    assert store.acquire(ANN, 1, NOW, NOW + minute).full_until is None
    assert f"the rate limit of {ANN} until" in caplog.text
    assert store.acquire(ANN, 1, NOW, NOW + minute).full_until == NOW + minute, "the new window counts"


def test_each_use_returns_how_many_are_left(store: TaskStore) -> None:
    assert [store.acquire(ANN, 2, NOW, LATER).left for _ in range(3)] == [1, 0, 0]
    store.refund(ANN)
    assert store.acquire(ANN, 5, NOW, LATER).left == 3, "the limit was raised, and the window still runs"
    assert store.acquire(ANN, 5, LATER, LATER + timedelta(minutes=5)).left == 4


def test_a_slot_that_was_not_used_is_given_back(store: TaskStore) -> None:
    assert store.acquire(ANN, 1, NOW, LATER).full_until is None
    store.refund(ANN)
    assert store.acquire(ANN, 1, NOW, LATER).full_until is None
    assert store.acquire(ANN, 1, NOW, LATER).full_until == LATER
    store.refund("nobody")


def test_a_window_never_takes_more_than_it_may(factory: Factory) -> None:
    stores = [factory() for _ in range(4)]

    def take(store: TaskStore) -> int:
        return sum(store.acquire(ANN, 10, NOW, LATER).full_until is None for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, stores)) == 10


def test_uses_are_added_beyond_the_limit(store: TaskStore) -> None:
    assert store.add_uses(ANN, 3, NOW, LATER) == RateLimitWindow(3, LATER)
    later = NOW + timedelta(seconds=1)
    assert store.add_uses(ANN, 2, later, LATER + timedelta(seconds=1)) == RateLimitWindow(5, LATER), (
        "the window still runs"
    )
    assert store.acquire(ANN, 5, NOW, LATER).full_until == LATER
    assert store.add_uses(ANN, 0, NOW, LATER) == RateLimitWindow(5, LATER)
    ends = LATER + timedelta(minutes=1)
    assert store.add_uses(ANN, 1, LATER, ends) == RateLimitWindow(1, ends)


def test_added_uses_replace_a_window_that_ends_later_than_possible(
    store: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    store.add_uses(ANN, 7, NOW + hour, NOW + hour + minute)
    assert store.add_uses(ANN, 2, NOW, NOW + minute) == RateLimitWindow(2, NOW + minute)
    assert f"the rate limit of {ANN} until" in caplog.text


def test_uses_that_processes_add_at_once_are_all_counted(factory: Factory) -> None:
    stores = [factory() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: [store.add_uses(ANN, 2, NOW, LATER) for _ in range(10)], stores))
    assert stores[0].add_uses(ANN, 0, NOW, LATER).count == 80
