"""Choose the pause between two polling cycles by their cost for Slurm."""

import time
from collections.abc import Callable

MIN_PAUSE = 1.0  # seconds, where MONITOR_POLLING_SECONDS is not set
MAX_PAUSE = 30.0  # seconds, unless MONITOR_POLLING_SECONDS is longer
_SHARE = 0.1  # of the time, for which Slurm may be busy with our requests
_BURST = 6.0  # seconds for which Slurm may be busy beyond its share: a tenth of a minute


class PollingPace:
    """Pace of polling, which keeps Slurm busy for at most a tenth of the time.

    After a cycle without changes, the share counts at once. After one with changes, as after the end of many
    jobs, it counts over a minute, so that the next cycle can soon finish the work of the last.
    """

    def __init__(self, min_pause: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a burst.

        Args:
            min_pause: The shortest pause, in seconds; None for the default.
            clock: Seconds of a monotonic clock.
        """
        self._min_pause = MIN_PAUSE if min_pause is None else min_pause
        self._clock = clock
        self._used = 0.0  # seconds of Slurm's time beyond the poller's share
        self._updated_at = clock()

    def next_pause(self, slurm_seconds: float, cycle_seconds: float, *, has_changes: bool) -> float:
        """Return the pause after a cycle, in seconds.

        Args:
            slurm_seconds: How long the cycle kept Slurm busy.
            cycle_seconds: How long the whole cycle took; the pause is at least as long.
            has_changes: Whether jobs have changed.
        """
        now = self._clock()
        left = max(0.0, self._used - _SHARE * (now - self._updated_at)) + slurm_seconds
        self._used = min(left, _BURST + _SHARE * MAX_PAUSE)  # after an outage, one pause is enough
        self._updated_at = now
        pause = max((self._used - _BURST) / _SHARE, cycle_seconds)
        if not has_changes:
            pause = max(pause, slurm_seconds / _SHARE - cycle_seconds)
        return max(self._min_pause, min(pause, MAX_PAUSE))
