"""The circuit breaker, without a network."""

import threading
from collections.abc import Callable

import pytest

from app.errors import SlurmUnavailable
from app.slurm.breaker import CircuitBreaker
from tests.conftest import until


class Slurm:
    """What a probe finds."""

    def __init__(self) -> None:
        self.down = True
        self.probes = 0
        self.held = threading.Event()
        self.held.set()

    def probe(self) -> None:
        self.probes += 1
        self.held.wait(10)
        if self.down:
            raise SlurmUnavailable("still down")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(probe: Callable[[], object], clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(probe, clock)
    for _ in range(3):
        breaker.require_closed()
        breaker.record_failure("no answer")
    return breaker


def test_a_few_failures_in_a_row_open_it() -> None:
    breaker = CircuitBreaker(lambda: None, Clock())
    for _ in range(2):
        breaker.record_failure("no answer")
    breaker.record_success()
    for _ in range(2):
        breaker.record_failure("no answer")
    breaker.require_closed()
    breaker.record_failure("no answer")
    with pytest.raises(SlurmUnavailable, match="no answer"):
        breaker.require_closed()


def test_a_probe_that_cannot_start_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm, clock = Slurm(), Clock()
    breaker = opened(slurm.probe, clock)
    slurm.down = False
    clock.now += 1
    with monkeypatch.context() as no_threads:
        no_threads.setattr("threading._start_new_thread", no_more)
        with pytest.raises(SlurmUnavailable):
            breaker.require_closed()
    assert slurm.probes == 0
    with pytest.raises(SlurmUnavailable):
        breaker.require_closed()
    until(lambda: not breaker.is_open, 5, "the end of the outage")


def no_more(*arguments: object) -> None:
    raise RuntimeError("can't start new thread")


def test_one_probe_at_a_time_and_callers_do_not_wait_for_it() -> None:
    slurm, clock = Slurm(), Clock()
    breaker = opened(slurm.probe, clock)
    slurm.held.clear()
    clock.now = 2
    for _ in range(5):
        with pytest.raises(SlurmUnavailable):
            breaker.require_closed()
    until(lambda: slurm.probes == 1, 5, "a probe")
    slurm.down = False
    slurm.held.set()
    until(lambda: not breaker.is_open, 5, "the end of the outage")
    breaker.require_closed()
    assert slurm.probes == 1


def test_a_probe_follows_a_second_after_the_last_one() -> None:
    slurm, clock = Slurm(), Clock()
    breaker = opened(slurm.probe, clock)
    times = []
    for second in (0, 0.5, 1, 1.5, 2, 2.5, 30):
        clock.now = second
        before = slurm.probes
        with pytest.raises(SlurmUnavailable):
            breaker.require_closed()
        until(lambda: not breaker._probing, 5, "the end of a probe")
        if slurm.probes > before:
            times.append(second)
    assert times == [1, 2, 30]
