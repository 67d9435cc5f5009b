"""Measure calls, and print their durations as a table: medians, p95, p99, and ratios to another row."""

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

Call = Callable[[], object]
Cell = str | float | int


@dataclass
class Timings:
    """The seconds of calls, and the time in which they were made.

    Attributes:
        times: Seconds of each call.
        elapsed: Seconds in which all of these calls were made, by one client or by several.
        cpu_seconds: CPU time that the server used meanwhile.
    """

    times: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, other: "Timings") -> None:
        """Add the calls of a later turn."""
        self.times += other.times
        self.elapsed += other.elapsed
        self.cpu_seconds += other.cpu_seconds

    @property
    def per_second(self) -> float:
        """Return how many calls were made in a second."""
        return len(self.times) / self.elapsed if self.elapsed else 0.0

    def milliseconds(self, share: float) -> float:
        """Return the milliseconds that this share of the calls did not exceed; 0.5 is the median."""
        return 1000 * percentile(self.times, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; NaN without values.

    For 0.5 it is the median, which lies between the middle two values of an even number.
    """
    if not values:
        return math.nan
    if share == 0.5:
        return statistics.median(values)
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def divide(value: float, base: float) -> float:
    """Return a ratio, or NaN if there is nothing to compare with."""
    return value / base if base else math.nan


def seconds_of(call: Call) -> float:
    """Make a call, and return how long it took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def time_in_turns(calls: Mapping[str, Call], rounds: int, warm_up: int = 20) -> dict[str, Timings]:
    """Make each call once a round, one after the other, so that noise of the machine meets all of them."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    found = {name: Timings() for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds = seconds_of(call)
            found[name].add(Timings([seconds], seconds))
    return found


def load_in_turns(
    clients: Mapping[str, Sequence[Call]],
    seconds: float,
    turns: int = 4,
    meters: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, Timings]:
    """Let all clients of one name call without a pause, then those of the next name, several times.

    Args:
        clients: For each name, the call of each of its clients.
        seconds: How long the clients of one name call in all.
        turns: How many turns each name has.
        meters: For some names, what returns the processor time that their server has had.
    """
    found = {name: Timings() for name in clients}
    for _ in range(turns):
        for name, calls in clients.items():
            read_cpu_seconds = (meters or {}).get(name, lambda: 0.0)
            before = read_cpu_seconds()
            timings = _run_clients(calls, seconds / turns)
            timings.cpu_seconds = read_cpu_seconds() - before
            found[name].add(timings)
    return found


def _run_clients(calls: Sequence[Call], seconds: float) -> Timings:
    """Repeat each call in a thread of its own until the time is over.

    Raises:
        ExceptionGroup: Calls failed.
    """
    times: list[list[float]] = [[] for _ in calls]
    failures: list[Exception] = []
    began = time.perf_counter()

    def repeat(call: Call, own: list[float]) -> None:
        try:
            while time.perf_counter() - began < seconds:
                own.append(seconds_of(call))
        except Exception as error:
            failures.append(error)

    run_together([partial(repeat, call, own) for call, own in zip(calls, times, strict=True)])
    if failures:
        raise ExceptionGroup("clients failed", failures)
    return Timings([value for own in times for value in own], time.perf_counter() - began)


def run_together(calls: Sequence[Call]) -> None:
    """Make all calls at the same time, each in a thread, and wait for their ends."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table in plain text: the first column to the left, all others to the right."""
    lines = [list(columns), *([_format_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _format_cell(cell: Cell) -> str:
    """Return a number with three digits that count, or a text as it is."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, float) and math.isnan(cell):
        return "-"
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
