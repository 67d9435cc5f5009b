"""Watch for outages of Slurm, and share them with the other processes."""

from collections.abc import Callable
from datetime import datetime, timedelta

from app.lifecycle.shared_status import StatusReader
from app.slurm.client import SlurmClient
from app.store.shared_status import OutageReport, SharedStatusStore

_REPORT_LIFETIME = timedelta(seconds=15)  # without a renewal, as when the process of a report has died
_RENEWAL_TIME = timedelta(seconds=10)  # before the end of a report, when it is renewed
_TAKE_OVER_AFTER = timedelta(seconds=3)  # after all other reports have ended, because the outage may be over


class OutageWatch:
    """Watch of one process for outages, its own and those that other processes report.

    A report of another process opens the circuit of this one, which then probes Slurm at once. Only an
    answer to a request of this process closes its circuit. After that, the report is ignored: it may come
    from a host without a network.
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
        """Read the shared status, open the circuit for a new report, and report this process's outage.

        Only one thread may call this.

        Args:
            now: The store's time.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        self._status.refresh(now)
        self._apply_reports(now)
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

    def _apply_reports(self, now: datetime) -> None:
        own_name = self._get_name()
        others = {
            (name, report.since): report.reason
            for name, report in self._status.outages.items()
            if name != own_name
        }
        if self._slurm.outage is None:
            self._refuted = self._seen & others.keys()
            if new := others.keys() - self._seen:
                self._slurm.open_circuit(others[min(new)])
        self._seen = set(others)
        if self._seen - self._refuted:
            self._others_at = now

    def _is_alone(self, now: datetime) -> bool:
        """Return whether no other process has reported this outage, now or a moment ago."""
        return self._others_at is None or not timedelta() <= now - self._others_at < _TAKE_OVER_AFTER

    def _report(self, reason: str, now: datetime) -> None:
        """Report the outage, or renew the report."""
        if self._own is None or not _RENEWAL_TIME <= self._own.until - now <= _REPORT_LIFETIME:
            since = self._own.since if self._own is not None else now
            report = OutageReport(reason, since, now + _REPORT_LIFETIME)
            self._store.report_outage(self._get_name(), report, now)
            self._own = report
