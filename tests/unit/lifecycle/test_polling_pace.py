"""The pause between two polls follows from what polling costs Slurm."""

import pytest

from app.lifecycle.polling_pace import PollingPace


def pauses(
    min_pause: float | None, slurm_seconds: float, cycles: int, *, has_changes: bool = False
) -> list[float]:
    now = [0.0]
    pace = PollingPace(min_pause, clock=lambda: now[0])
    found = []
    for _ in range(cycles):
        now[0] += slurm_seconds
        found.append(pace.next_pause(slurm_seconds, slurm_seconds, has_changes=has_changes))
        now[0] += found[-1]
    return found


def test_cheap_polls_are_a_second_apart() -> None:
    assert set(pauses(None, 0.05, 1000)) == {1.0}


@pytest.mark.parametrize("slurm_seconds", [0.2, 0.5, 1.0, 2.5])
def test_slurm_is_busy_for_a_tenth_of_the_time_at_most(slurm_seconds: float) -> None:
    assert pauses(None, slurm_seconds, 200) == [pytest.approx(9 * slurm_seconds)] * 200


@pytest.mark.parametrize("slurm_seconds", [0.2, 0.5, 1.0, 2.5])
def test_changes_in_every_poll_keep_slurm_busy_for_a_tenth_of_the_time_in_the_end(
    slurm_seconds: float,
) -> None:
    found = pauses(None, slurm_seconds, 200, has_changes=True)
    assert found[0] == max(1.0, slurm_seconds)
    assert found[-1] == pytest.approx(9 * slurm_seconds)
    everything = 200 * slurm_seconds + sum(found)
    assert 200 * slurm_seconds <= 0.1 * everything + 6


def test_a_burst_of_changes_does_not_delay_the_next_poll() -> None:
    assert pauses(None, 2.5, 2, has_changes=True) == [2.5, 2.5]


def test_polls_are_half_a_minute_apart_at_most() -> None:
    assert max(pauses(None, 20, 10)) == 30


def test_one_long_pause_follows_an_outage_not_many() -> None:
    now = [0.0]
    pace = PollingPace(None, clock=lambda: now[0])
    for _ in range(5):
        now[0] += 18 + pace.next_pause(18, 18, has_changes=False)
    now[0] += 30
    pace.next_pause(0.01, 0.02, has_changes=False)
    assert pace.next_pause(0.01, 0.02, has_changes=False) <= 1.5


@pytest.mark.parametrize(("min_pause", "pause"), [(0.25, 0.25), (5, 5), (120, 120)])
def test_the_setting_is_the_shortest_pause(min_pause: float, pause: float) -> None:
    assert set(pauses(min_pause, 0.001, 10)) == {pause}


def test_the_time_that_the_cycle_itself_takes_counts_as_part_of_the_pause() -> None:
    assert PollingPace(None).next_pause(0.5, 2.0, has_changes=False) == 3.0


def test_poller_pauses_at_least_as_long_as_its_cycle_took() -> None:
    assert PollingPace(None).next_pause(0.1, 4.0, has_changes=True) == 4.0
