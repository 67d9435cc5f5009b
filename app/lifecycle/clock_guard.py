"""Compare this host's clock and the store's with Slurm's clock, which decides when tokens expire."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from app.clock import RemoteClock, steady_seconds
from app.errors import ClocksDisagree, SlurmMisbehaved, SlurmUnavailable
from app.models.record import utc_now
from app.slurm.client import SlurmClient

logger = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds between two readings of Slurm's clock in each process
_RESOLUTION = 1.0  # seconds: Slurm reports its time in whole seconds
_MIN_JUMP = 5.0  # seconds; a clock that changed by more was set, by less its speed was corrected
_LONG_TOKEN = timedelta(days=1)  # how long a token lasts on a host whose ordinary tokens have expired


class ClockGuard:
    """Guard that refuses work while a clock is too far from Slurm's. One for each process; thread-safe.

    `measure` reads Slurm's clock once a minute. In between, Slurm's time is computed from a clock that is
    never set, without a request.
    """

    def __init__(
        self,
        slurm: SlurmClient,
        tolerance: timedelta,
        *,
        host_clock: Callable[[], datetime] = utc_now,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        """Create a guard that has read no clock yet.

        Args:
            slurm: The client that reads Slurm's clock.
            tolerance: How far the clocks may differ.
            host_clock: Returns this host's time.
            steady: Returns the seconds of a clock that is never set.
        """
        self._slurm = slurm
        self._slurm_clock = RemoteClock(self._read_slurm_time, steady)
        self._tolerance = tolerance.total_seconds()
        self._host_clock = host_clock
        self._steady = steady
        self._host_offset: float | None = None
        self._tried_at: float | None = None
        self._reported: str | None = None
        self._reporting = threading.Lock()

    def measure(self) -> None:
        """Read Slurm's clock if the last attempt was a minute ago, or if this host's clock was set.

        If the reading fails, it is tried again with a token that lasts longer: the tokens of a host whose
        clock is far behind have expired already.
        """
        now = self._steady()
        is_due = self._tried_at is None or now - self._tried_at >= _INTERVAL
        if not self._was_host_clock_set() and not is_due:
            return
        self._tried_at = now
        try:
            self._slurm_clock.refresh()
        except (SlurmUnavailable, SlurmMisbehaved):
            try:
                self._slurm_clock.refresh(lambda: self._read_slurm_time(self._host_clock() + _LONG_TOKEN))
            except (SlurmUnavailable, SlurmMisbehaved) as error:
                logger.debug("Slurm's clock cannot be read: %s", error)

    def check(self, store_time: datetime) -> None:
        """Raise an error if a clock is too far from Slurm's. `store_time`: the store's clock now.

        This makes a request only if Slurm's clock was never read.

        Raises:
            ClocksDisagree: This host's clock or the store's is too far from Slurm's.
            SlurmUnavailable: Slurm's clock was never read, and Slurm does not answer now.
            SlurmMisbehaved: Slurm's clock was never read, and Slurm's answer cannot be used now.
        """
        if not self._slurm_clock.is_known:
            self._slurm_clock.refresh()
        if (difference := self.describe_disagreement(store_time)) is not None:
            raise ClocksDisagree(f"{difference}; this process submits nothing until the clocks agree")

    def describe_disagreement(self, store_time: datetime) -> str | None:
        """Describe the clock that is too far from Slurm's; return None if there is none, or none was read."""
        if not self._slurm_clock.is_known:
            return None
        slurm_time = self._slurm_clock.now()
        too_far = self._describe_if_too_far("this host's clock", self._host_clock() - slurm_time)
        too_far = too_far or self._describe_if_too_far("the database's clock", store_time - slurm_time)
        self._report(too_far)
        return too_far

    def _read_slurm_time(self, expires: datetime | None = None) -> datetime:
        return self._slurm.read_controller_time(expires) + timedelta(seconds=_RESOLUTION / 2)

    def _describe_if_too_far(self, name: str, difference: timedelta) -> str | None:
        seconds = difference.total_seconds()
        if abs(seconds) <= self._tolerance + _RESOLUTION / 2 + self._slurm_clock.error:
            return None
        side = "ahead of" if seconds > 0 else "behind"
        return (
            f"{name} is {abs(seconds):.0f} s {side} Slurm's,"
            f" and SLURM_CLOCK_SKEW_SECONDS allows {self._tolerance:.0f} s"
        )

    def _report(self, difference: str | None) -> None:
        """Log when clocks begin to disagree, and when they agree again."""
        with self._reporting:
            before, self._reported = self._reported, difference
        if difference is not None and before is None:
            logger.error("this process neither polls nor submits: %s", difference)
        elif difference is None and before is not None:
            logger.warning("the clocks agree again; this process polls and submits")

    def _was_host_clock_set(self) -> bool:
        offset = self._host_clock().timestamp() - self._steady()
        before, self._host_offset = self._host_offset, offset
        if before is None or abs(offset - before) < _MIN_JUMP:
            return False
        side = "forward" if offset > before else "back"
        logger.warning("this host's clock was set %s by %.0f s", side, abs(offset - before))
        return True
