"""The leader's lease in MongoDB; `app/store/lease.py` explains how lease and fencing token work."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from app.models.leader_report import LeaderReport
from app.store.clock import CLOCK_TOLERANCE, log_clock_set_back
from app.store.lease import LEASE_NAME, LeaderLease, Lease
from app.store.mongo.database import NOT_DURABLE, MongoDatabase
from app.store.mongo.types import Document

_LONG_AGO = datetime.fromtimestamp(0, UTC)


def match_not_fenced_after(fence: int) -> Document:
    """Return a condition for records that no leader with a newer fencing token has marked."""
    return {"fence": {"$not": {"$gt": fence}}}


class MongoLeaderLease(MongoDatabase, LeaderLease):
    """The lease as one document."""

    _fenced_with: int | None = None  # the token with which this process has marked all open records

    def acquire_lease(self, owner: str, now: datetime, until: datetime) -> int | None:
        """Update the lease if `owner` may have it; after a change of owner, mark the open records."""
        latest = until + CLOCK_TOLERANCE
        over = [{"until": {"$lt": now}}, {"until": {"$gt": latest}}]
        free = {"_id": LEASE_NAME, "$or": [{"owner": owner}, *over]}
        grown = {"$add": [{"$ifNull": ["$fence", 0]}, {"$cond": [{"$eq": ["$owner", owner]}, 0, 1]}]}
        taken = {"owner": {"$literal": owner}, "until": until, "fence": grown}
        with self.operating():
            try:
                held = self.leases.find_one_and_update(
                    free, [{"$set": taken}], upsert=True, return_document=ReturnDocument.BEFORE
                )
            except DuplicateKeyError:  # the lease exists, and another process holds it
                return None
            held = held or {"owner": "", "until": now, "fence": 0}
            if held["owner"] != owner and held["until"] > latest:
                log_clock_set_back(f"the monitor's lease until {held['until']}")
            fence = int(held.get("fence") or 0) + int(held["owner"] != owner)
            if fence != self._fenced_with:
                self._fence_open_records(fence)
            return fence

    def release_lease(self, owner: str) -> None:
        """Clear the owner and the end of the lease, but not the fencing token."""
        with self.operating():
            self.leases.update_one(
                {"_id": LEASE_NAME, "owner": owner}, {"$set": {"owner": "", "until": _LONG_AGO}}
            )

    def read_lease(self, within: float | None = None) -> Lease | None:
        """Find the lease."""
        with self.operating(within):
            held = self.leases.find_one({"_id": LEASE_NAME})
        if held is None:
            return None
        report = LeaderReport.model_validate(held.get("report") or {})
        return Lease(held["owner"], held["until"], int(held.get("fence") or 0), report)

    def update_leader_report(self, owner: str, changes: Mapping[str, Any]) -> None:
        """Change the fields; losing them in a crash does no harm, so the write waits for one server only."""
        values = {f"report.{field}": value for field, value in changes.items()}
        leases = self.leases.with_options(write_concern=NOT_DURABLE)
        with self.operating():
            leases.update_one({"_id": LEASE_NAME, "owner": owner}, {"$set": values})

    def _fence_open_records(self, fence: int) -> None:
        """Mark all records that may still change, so that the writes of earlier leaders find none."""
        for field in ("is_open", "is_reserved"):
            self.tasks.update_many(
                {field: True, **match_not_fenced_after(fence - 1)}, {"$set": {"fence": fence}}
            )
        self._fenced_with = fence
