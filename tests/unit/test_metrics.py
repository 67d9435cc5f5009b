"""Counters, durations and gauges of one process."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.metrics import HTTP_REQUESTS, SLURM_CIRCUIT_OPEN, STORE_OPERATION_SECONDS, Kind, Metric, Metrics

SECONDS = Metric("test_seconds", Kind.HISTOGRAM, "For tests.", ("what",), (0.1, 1))


def test_a_snapshot_has_what_was_counted_as_json_has_it() -> None:
    metrics = Metrics()
    metrics.count(HTTP_REQUESTS, "GET", "/ping", "200")
    metrics.count(HTTP_REQUESTS, "GET", "/ping", "200", by=2)
    metrics.add_gauge(SLURM_CIRCUIT_OPEN, lambda: 1.0, "callers")
    assert json.loads(json.dumps(metrics.snapshot())) == {
        HTTP_REQUESTS.name: [[["GET", "/ping", "200"], 3]],
        SLURM_CIRCUIT_OPEN.name: [[["callers"], 1]],
    }


def test_a_histogram_counts_each_duration_in_the_first_bucket_that_has_room_for_it() -> None:
    metrics = Metrics()
    for seconds in (0.05, 0.1, 0.2, 1, 5):
        metrics.observe(SECONDS, seconds, "x")
    ((labels, (*counts, total)),) = metrics.snapshot()[SECONDS.name]
    assert (labels, counts, total) == (["x"], [2, 2, 1], pytest.approx(6.35))


def test_a_snapshot_does_not_change_later() -> None:
    metrics = Metrics()
    metrics.observe(SECONDS, 1, "x")
    before = metrics.snapshot()
    metrics.observe(SECONDS, 1, "x")
    assert before != metrics.snapshot()


def test_a_block_is_timed_even_if_it_fails() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="no"), metrics.timing(STORE_OPERATION_SECONDS, "read"):
        raise ValueError("no")
    ((_, values),) = metrics.snapshot()[STORE_OPERATION_SECONDS.name]
    assert sum(values[:-1]) == 1


def test_threads_lose_no_counts() -> None:
    metrics = Metrics()

    def count(_: int) -> None:
        metrics.count(HTTP_REQUESTS, "a", "b", "c")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(4000)))
    assert metrics.snapshot()[HTTP_REQUESTS.name] == [[["a", "b", "c"], 4000]]
