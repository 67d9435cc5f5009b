"""A clock that is never set, and the clocks of other machines, computed from their last reading."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_MAX_ERROR = 1.0  # seconds; a reading with a larger error, as in a process that was frozen, is repeated
_MAX_ATTEMPTS = 3


def steady_seconds() -> float:
    """Return seconds of a clock that is never set, and that runs on while the machine sleeps."""
    return time.clock_gettime(_STEADY_CLOCK)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One reading of another machine's clock."""

    at: datetime  # the other machine's time
    steady: float  # this host's steady clock at that moment
    error: float  # seconds


class RemoteClock:
    """The clock of another machine: read now and then, and computed from the last reading in between.

    Setting this host's clock does not affect it. Thread-safe.
    """

    def __init__(self, read: Callable[[], datetime], steady: Callable[[], float] = steady_seconds) -> None:
        """Create a clock that is not read yet.

        Args:
            read: Returns the other machine's time at the moment of its answer.
            steady: Returns the seconds of a clock that is never set.
        """
        self._read = read
        self._steady = steady
        self._reading: ClockReading | None = None

    @property
    def is_known(self) -> bool:
        """Return whether the clock was ever read."""
        return self._reading is not None

    @property
    def error(self) -> float:
        """Return by how many seconds the last reading may be wrong: half of the time that the answer took."""
        return self._reading.error if self._reading else 0.0

    @property
    def age(self) -> float:
        """Return how many seconds ago the clock was read."""
        return self._steady() - self._reading.steady if self._reading else float("inf")

    def refresh(self, read: Callable[[], datetime] | None = None) -> ClockReading:
        """Read the clock, with `read` if it is given.

        If the reading raises an exception, the last reading is kept.
        """
        for _ in range(_MAX_ATTEMPTS):
            began = self._steady()
            at = (read or self._read)()
            ended = self._steady()
            reading = ClockReading(at, (began + ended) / 2, (ended - began) / 2)
            if reading.error <= _MAX_ERROR:
                break
        self._reading = reading
        return reading

    def now(self) -> datetime:
        """Return the other machine's time; read the clock first if it was never read.

        The exceptions of such a reading are raised.
        """
        reading = self._reading or self.refresh()
        return reading.at + timedelta(seconds=self._steady() - reading.steady)
