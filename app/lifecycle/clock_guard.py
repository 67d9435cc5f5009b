"""Compares the clocks that decide here with Slurm's, which judges how long a submission may be taken."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from app.clock import RemoteClock, steady_seconds
from app.errors import ClocksDisagree, SlurmMisbehaved, SlurmUnavailable
from app.models.record import utc_now
from app.slurm.client import SlurmClient

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds between two readings of Slurm's clock in each process
_RESOLUTION = 1.0  # seconds: Slurm tells its time in whole ones
_STEP = 5.0  # seconds that a clock jumps by when it is set; correcting its speed is less
_LONG_TOKEN = timedelta(days=1)


class ClockGuard:
    """Refuses work while a clock is too far from Slurm's. One for each process; thread-safe.

    The difference is measured by `measure`, at a low rate, and known from then on without a request:
    Slurm's time is worked out with a clock that is never set.
    """

    def __init__(
        self,
        slurm: SlurmClient,
        tolerance: timedelta,
        *,
        host_clock: Callable[[], datetime] = utc_now,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._slurm = slurm
        self._slurm_clock = RemoteClock(self._slurm_time, steady)
        self._tolerance = tolerance.total_seconds()
        self._host_clock = host_clock
        self._steady = steady
        self._host_offset: float | None = None
        self._tried_at: float | None = None
        self._reported: str | None = None
        self._reporting = threading.Lock()

    def measure(self) -> None:
        """Read Slurm's clock if the last attempt was a minute ago, or if this host's clock was set.

        A host whose clock is far behind makes tokens that have expired: it tries with a longer one.
        """
        now = self._steady()
        is_due = self._tried_at is None or now - self._tried_at >= _EVERY
        if not self._was_host_clock_set() and not is_due:
            return
        self._tried_at = now
        try:
            self._slurm_clock.refresh()
        except (SlurmUnavailable, SlurmMisbehaved):
            try:
                self._slurm_clock.refresh(lambda: self._slurm_time(self._host_clock() + _LONG_TOKEN))
            except (SlurmUnavailable, SlurmMisbehaved) as error:
                logger.debug("Slurm's clock cannot be read: %s", error)

    def check(self, store_time: datetime) -> None:
        """Ask for nothing, unless Slurm's clock was never read. `store_time`: the store's clock now.

        Raises:
            ClocksDisagree: this host's clock or the store's is too far from Slurm's.
            SlurmUnavailable, SlurmMisbehaved: Slurm's clock was never read, and cannot be read now.
        """
        if not self._slurm_clock.is_known:
            self._slurm_clock.refresh()
        if (words := self.disagreement(store_time)) is not None:
            raise ClocksDisagree(f"{words}; nothing is submitted from here until the clocks agree")

    def disagreement(self, store_time: datetime) -> str | None:
        """Return which clock is too far from Slurm's; None if none is, or if nothing was measured yet."""
        if not self._slurm_clock.is_known:
            return None
        slurm_time = self._slurm_clock.now()
        words = self._too_far("this host's clock", self._host_clock() - slurm_time)
        words = words or self._too_far("the database's clock", store_time - slurm_time)
        self._report(words)
        return words

    def _slurm_time(self, expires: datetime | None = None) -> datetime:
        return self._slurm.time(expires) + timedelta(seconds=_RESOLUTION / 2)

    def _too_far(self, name: str, difference: timedelta) -> str | None:
        seconds = difference.total_seconds()
        if abs(seconds) <= self._tolerance + _RESOLUTION / 2 + self._slurm_clock.error:
            return None
        side = "ahead of" if seconds > 0 else "behind"
        return (
            f"{name} is {abs(seconds):.0f} s {side} Slurm's,"
            f" and SLURM_CLOCK_SKEW_SECONDS allows {self._tolerance:.0f} s"
        )

    def _report(self, words: str | None) -> None:
        """Log when clocks begin to disagree, and when they agree again."""
        with self._reporting:
            before, self._reported = self._reported, words
        if words is not None and before is None:
            logger.error("this process neither polls nor submits: %s", words)
        elif words is None and before is not None:
            logger.warning("the clocks agree again; this process polls and submits")

    def _was_host_clock_set(self) -> bool:
        offset = self._host_clock().timestamp() - self._steady()
        before, self._host_offset = self._host_offset, offset
        if before is None or abs(offset - before) < _STEP:
            return False
        side = "forward" if offset > before else "back"
        logger.warning("this host's clock was set %s by %.0f s", side, abs(offset - before))
        return True
