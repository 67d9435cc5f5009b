"""The leader's lease, and the fencing token that stops the changes of a former leader.

Any number of processes share a store. One of them, the leader, polls Slurm and reconciles reservations. All
processes add records, accept jobs, and claim and settle notifications: these writes need no lease.

- **Acquiring.** Each process calls `acquire_lease` before each polling cycle, unless clocks disagree (see
  below). The call is one atomic write to the one lease of the store, which has an owner, an end (`until`) and
  a fencing token (`fence`). It succeeds if the lease has ended, or if the caller owns the lease already.
  Otherwise another process leads.
- **Renewing.** A lease lasts MONITOR_LEASE_SECONDS. The leader calls `acquire_lease` again after a third of
  that time, also during a long polling cycle, but not while a cycle hangs (`app/monitor.py`). If the leader
  dies, another process leads once the lease has ended. A leader that stops calls `release_lease`, so that
  another process leads at once.
- **Fencing.** A leader that was frozen may go on writing after its lease has ended. The lease alone cannot
  prevent that. Therefore the fencing token grows by one whenever the lease goes to another owner. The leader
  passes its token to `RecordStore.apply_changes`, which writes new job states and their notifications. SQLite
  compares the token with the newest one in the transaction that writes the records; an older token changes
  nothing. MongoDB has no transactions on a single server. There a new leader first marks all open records
  and reservations with its token, and a write changes only records that no later leader has marked. In both
  stores each change also names the state that the record must have.
- **Without the token.** The reconciler's `accept_job` and `fail_reservation` take no token. They change only
  the reservation of this uuid and creation time, and only while it has no job.
- **Clocks.** The times of a lease are the store's, so that the clocks of hosts do not matter for its end. A
  lease that ends later than possible was written before the store's clock was set back, and is taken over.
  A leader whose own clock or whose store's clock differs from Slurm's by more than SLURM_CLOCK_SKEW_SECONDS
  releases the lease before its next cycle (`Monitor.run_cycle` in `app/monitor.py`).

`mongo/lease.py` and `sqlite/lease.py` are the two implementations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.models.leader_report import LeaderReport
from app.store.clock import StoreClock

LEASE_NAME = "monitor"  # of the only lease of a store


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease as it is stored; `owner` is empty, or `until` has passed, while no process leads."""

    owner: str
    until: datetime
    fence: int
    report: LeaderReport

    def is_held(self, now: datetime) -> bool:
        """Return whether a process leads at this time of the store."""
        return bool(self.owner) and now <= self.until


class LeaderLease(StoreClock, Protocol):
    """The right to poll Slurm and to reconcile, which one process holds for a short time.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def acquire_lease(self, owner: str, now: datetime, until: datetime) -> int | None:
        """Acquire or renew the lease until `until`; return None while another process holds it.

        A lease that ends later than `until` plus CLOCK_TOLERANCE shows that the clock was set back. It is
        taken over, and this is logged.

        Args:
            owner: The name of this process, which no other process has.
            now: The store's time.
            until: When the lease ends unless it is renewed.

        Returns:
            The fencing token, a number that grows whenever the lease goes to another owner.
        """

    def release_lease(self, owner: str) -> None:
        """Release the lease if `owner` holds the lease, so that another process can lead at once."""

    def read_lease(self, within: float | None = None) -> Lease | None:
        """Return the lease with the report of the leader; None before the first leader.

        `within`: seconds that the search may take, instead of the configured time.
        """

    def update_leader_report(self, owner: str, changes: Mapping[str, Any]) -> None:
        """Change fields of the report beside the lease, if `owner` holds the lease.

        Args:
            owner: The name of the leading process.
            changes: New values of fields of LeaderReport, as JSON has them; None removes a value.
        """
