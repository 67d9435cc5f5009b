"""Watch for outages of Slurm, and share what is noticed with the other processes."""

from collections.abc import Callable
from datetime import datetime, timedelta

from app.lifecycle.shared_status import StatusReader
from app.slurm.client import SlurmClient
from app.store.shared_status import OutageReport, SharedStatusStore

_LIFE = timedelta(seconds=15)  # of a report that is not renewed, because its process has died
_RENEWED = timedelta(seconds=10)  # before its end
_QUIET = timedelta(seconds=3)  # after the reports of others; until then the own probe closes the circuit


class OutageWatch:
    """The watch of one process for outages that it or another process notices.

    A report only opens the circuit of another process, which probes Slurm at once. Only an answer to one of
    its own requests closes its circuit. A report that an answer has refuted, such as that of a host without a
    network, is ignored from then on.
    """

    def __init__(
        self,
        store: SharedStatusStore,
        slurm: SlurmClient,
        status: StatusReader,
        get_name: Callable[[], str],
    ) -> None:
        """Create a watch that has reported nothing.

        Args:
            store: Where outages are reported.
            slurm: A client of this process; all its clients share one circuit breaker.
            status: The shared status, which is refreshed here.
            get_name: Returns the name of this process, which no other process has.
        """
        self._store = store
        self._slurm = slurm
        self._status = status
        self._get_name = get_name
        self._seen: set[tuple[str, datetime]] = set()  # the others' reports of the last reading
        self._refuted: set[tuple[str, datetime]] = set()
        self._others_at: datetime | None = None  # when another process last reported an outage
        self._own: OutageReport | None = None

    def watch(self) -> None:
        """Probe Slurm if a probe is due, and ping it while calls wait; a loop calls this often."""
        self._slurm.watch()

    def exchange(self, now: datetime) -> None:
        """Read the shared status, open the circuit for a new report, and report the own outage.

        Only one thread may call this.

        Args:
            now: The store's time.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        self._status.refresh(now)
        self._heed_others(now)
        if self._slurm.outage is None:
            self.withdraw()
        elif self._own is not None or self._is_alone(now):
            self._report(self._slurm.outage, now)

    def withdraw(self) -> None:
        """Withdraw the report of this process, if there is one.

        Raises:
            StoreUnavailable: The store does not answer; the report ends by itself.
        """
        if self._own is not None:
            self._store.withdraw_outage(self._get_name())
            self._own = None

    def _heed_others(self, now: datetime) -> None:
        own_name = self._get_name()
        others = {
            (name, report.since): report.reason
            for name, report in self._status.outages.items()
            if name != own_name
        }
        if self._slurm.outage is None:
            self._refuted = self._seen & others.keys()
            if new := others.keys() - self._seen:
                self._slurm.heed_outage(others[min(new)])
        self._seen = set(others)
        if self._seen - self._refuted:
            self._others_at = now

    def _is_alone(self, now: datetime) -> bool:
        """Return whether no other process has reported this outage, now or a moment ago."""
        return self._others_at is None or not timedelta() <= now - self._others_at < _QUIET

    def _report(self, reason: str, now: datetime) -> None:
        """Report the outage, or renew the report."""
        if self._own is None or not _RENEWED <= self._own.until - now <= _LIFE:
            since = self._own.since if self._own is not None else now
            report = OutageReport(reason, since, now + _LIFE)
            self._store.report_outage(self._get_name(), report, now)
            self._own = report
