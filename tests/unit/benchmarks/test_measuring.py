"""What the benchmarks compute and print."""

import math
import time

import pytest

from benchmarks.measuring import (
    Cell,
    Timings,
    divide,
    format_table,
    load_in_turns,
    percentile,
    time_in_turns,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([float(number) for number in range(1, 101)], 0.95, 95.0),
        ([float(number) for number in range(1, 101)], 0.99, 99.0),
        ([1.0, 7.0], 0.95, 7.0),
        ([5.0], 0.99, 5.0),
    ],
)
def test_percentile_is_a_value_that_the_share_does_not_exceed(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_percentile_and_ratio_of_nothing_are_not_numbers() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(divide(1.0, 0.0))


def test_time_in_turns_calls_each_once_a_round_after_a_warm_up() -> None:
    calls: list[str] = []
    found = time_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, warm_up=1)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [len(timings.times) for timings in found.values()] == [2, 2]


def test_load_in_turns_counts_the_calls_of_all_clients() -> None:
    clients = [lambda: time.sleep(0.005)] * 3
    found = load_in_turns({"all": clients}, 0.1, turns=2)["all"]
    assert len(found.times) >= 6
    assert found.elapsed >= 0.1
    assert found.per_second == len(found.times) / found.elapsed
    assert found.milliseconds(0.5) >= 5


def test_load_in_turns_counts_the_processor_time_of_a_servers_own_turns() -> None:
    readings = iter([1.0, 1.5, 7.0, 7.25])
    clients = {"measured": [lambda: time.sleep(0.01)], "other": [lambda: time.sleep(0.01)]}
    found = load_in_turns(clients, 0.1, turns=2, meters={"measured": lambda: next(readings)})
    assert found["measured"].cpu_seconds == 0.75
    assert found["other"].cpu_seconds == 0


def test_load_in_turns_reports_the_failures_of_clients() -> None:
    def fail() -> None:
        raise RuntimeError("refused")

    with pytest.raises(ExceptionGroup, match="clients failed"):
        load_in_turns({"all": [fail]}, 0.1, turns=1)


def test_timings_without_calls_have_no_rate() -> None:
    assert Timings().per_second == 0


def test_format_table_aligns_numbers_and_shows_three_digits_that_count() -> None:
    rows: list[list[Cell]] = [
        ["SQLite", 1.234, 0.5],
        ["a replica set", 12.34, 43_000],
        ["nothing", math.nan, "3 %"],
    ]
    assert format_table(("store", "ms", "÷ raw"), rows) == (
        "store            ms   ÷ raw\n"
        "SQLite         1.23    0.50\n"
        "a replica set  12.3  43,000\n"
        "nothing           -     3 %"
    )
