"""The calls that wait for an answer, with a clock."""

import threading

from app.slurm.call_watch import CallWatch
from tests.conftest import until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_ping_is_due_when_a_call_waits_and_none_is_answered() -> None:
    clock = Clock()
    calls = CallWatch(clock)
    clock.now = 10
    assert not calls.is_ping_due(), "no call waits"
    with calls.waiting() as began:
        assert began == 10
        assert not calls.is_ping_due()
        clock.now += 0.125
        assert calls.is_ping_due()
        calls.record_answer()
        assert not calls.is_ping_due(), "another call was answered"
        clock.now += 0.125
        assert calls.is_ping_due()
    assert not calls.is_ping_due()


def test_pings_become_less_frequent_while_slurmctld_is_only_slow() -> None:
    clock = Clock()
    calls = CallWatch(clock)
    with calls.waiting():
        for interval in (0.5, 1, 2, 2):
            with calls.pinging():
                pass
            clock.now += interval - 0.125
            assert not calls.is_ping_due()
            clock.now += 0.125
            assert calls.is_ping_due()
        clock.now += 20
        with calls.pinging():
            pass
        clock.now += 0.5
        assert calls.is_ping_due(), "the last ping was long ago"


def test_further_calls_wait_for_a_ping_that_is_late_until_anything_is_answered() -> None:
    clock = Clock()
    calls = CallWatch(clock)
    assert not calls.is_ping_late()
    with calls.pinging():
        clock.now += 0.25
        assert not calls.is_ping_late(), "the ping may still be answered at once"
        clock.now += 0.25
        assert calls.is_ping_late()
        waiting = [threading.Thread(target=calls.wait_for_ping, args=(10,)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        assert all(thread.is_alive() for thread in waiting)
        calls.record_answer()
        for thread in waiting:
            thread.join(5)
        assert not any(thread.is_alive() for thread in waiting)
        assert not calls.is_ping_late()


def test_the_end_of_a_ping_ends_the_waiting() -> None:
    clock = Clock()
    calls = CallWatch(clock)
    with calls.pinging():
        clock.now += 1
        thread = threading.Thread(target=calls.wait_for_ping, args=(10,))
        thread.start()
    until(lambda: not thread.is_alive(), 5, "the end of the waiting")
