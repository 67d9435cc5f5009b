"""Share the status of Slurm between processes: the outages that they report, and the last complete poll.

Each process reads the shared status a few times a second: see `app/lifecycle/shared_status.py`. The report of
an outage ends at its `until` unless it is renewed. So a process that has died does not keep other processes
from using Slurm.

`mongo/shared_status.py` and `sqlite/shared_status.py` are the two implementations. Both keep the reports
beside the leader's lease, so that one small query reads everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.store.clock import StoreClock

REPORT_PREFIX = "outage:"  # of the names beside the lease; the rest is the name of the reporting process


@dataclass(frozen=True, slots=True)
class OutageReport:
    """Report of one process that Slurm is down, valid until `until`, a time of the store.

    Attributes:
        reason: Why Slurm is down, in words for callers.
        since: When the process noticed the outage, by the store's clock. It tells outages apart.
        until: When the report ends unless it is renewed.
    """

    reason: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class SharedStatus:
    """The shared status at one moment.

    Attributes:
        polled_at: When the last complete poll began, by the store's clock; None before the first one.
        outages: The reports that have not ended, by the name of the reporting process.
        uncovered: The ids of the jobs whose records may have been behind after that poll.
    """

    polled_at: datetime | None = None
    outages: Mapping[str, OutageReport] = field(default_factory=dict)
    uncovered: frozenset[int] = frozenset()


class SharedStatusStore(StoreClock, Protocol):
    """The store of the shared status.

    `polled_at` and `uncovered` are fields of the leader's report: see `lease.py`.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def read_shared_status(self, now: datetime) -> SharedStatus:
        """Return the shared status at `now`, a time by the store's clock, with one small query."""

    def report_outage(self, reporter: str, report: OutageReport, now: datetime) -> None:
        """Write the report of a process in place of its last one, and delete reports that have ended.

        Losing a report in a crash of the database does no harm, so the write need not wait for the disk.
        """

    def withdraw_outage(self, reporter: str) -> None:
        """Delete the report of a process, if there is one."""
