"""Time: a clock that is never set, and the clocks of other machines as offsets to it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_PRECISE = 1.0  # seconds; after a worse reading, as of a process that was frozen, the clock is read again
_ATTEMPTS = 3


def steady_seconds() -> float:
    """Return seconds of a clock that is never set, and that runs on while the machine sleeps."""
    return time.clock_gettime(_STEADY)


class RemoteClock:
    """Another machine's clock: read now and then, and worked out from the last reading in between.

    Setting this host's clock does not change it. Thread-safe.
    """

    def __init__(self, read: Callable[[], datetime], steady: Callable[[], float] = steady_seconds) -> None:
        """`read`: returns the other machine's time when it answered."""
        self._read = read
        self._steady = steady
        self._reading: _Reading | None = None

    @property
    def is_known(self) -> bool:
        return self._reading is not None

    @property
    def error(self) -> float:
        """Seconds that the last reading may be wrong by: half of the time that the answer took."""
        return self._reading.error if self._reading else 0.0

    @property
    def age(self) -> float:
        """Seconds since the last reading."""
        return self._steady() - self._reading.steady if self._reading else float("inf")

    def refresh(self, read: Callable[[], datetime] | None = None) -> "_Reading":
        """Read the clock, by another way if `read` is given. The last reading is kept if that fails.

        Raises: what `read` raises.
        """
        for _ in range(_ATTEMPTS):
            began = self._steady()
            at = (read or self._read)()
            ended = self._steady()
            reading = _Reading(at, (began + ended) / 2, (ended - began) / 2)
            if reading.error <= _PRECISE:
                break
        self._reading = reading
        return reading

    def now(self) -> datetime:
        """Return the other machine's time; it is read if it never was.

        Raises: what `read` raises, if the clock was never read.
        """
        reading = self._reading or self.refresh()
        return reading.at + timedelta(seconds=self._steady() - reading.steady)


@dataclass(frozen=True, slots=True)
class _Reading:
    at: datetime
    steady: float  # this host's steady clock at that moment
    error: float  # seconds
