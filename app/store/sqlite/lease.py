"""The leader's lease in SQLite; `app/store/lease.py` explains how lease and fencing token work."""

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.models.leader_report import LeaderReport
from app.store.clock import CLOCK_TOLERANCE, log_clock_set_back
from app.store.lease import LEASE_NAME, LeaderLease, Lease
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import to_datetime, to_milliseconds


def is_newest_fence(connection: sqlite3.Connection, fence: int) -> bool:
    """Return whether no other process has acquired the lease since this fencing token was given out."""
    row = connection.execute("SELECT fence FROM leases WHERE name = ?", (LEASE_NAME,)).fetchone()
    return row is not None and row[0] == fence


class SqliteLeaderLease(SqliteDatabase, LeaderLease):
    """The lease as a row of the table `leases`, beside the reports of outages."""

    def acquire_lease(self, owner: str, now: datetime, until: datetime) -> int | None:
        """Update the lease if `owner` may have it, in one transaction."""
        latest = to_milliseconds(until + CLOCK_TOLERANCE)
        with self.writing() as connection:
            held = connection.execute(
                "SELECT owner, until FROM leases WHERE name = ?", (LEASE_NAME,)
            ).fetchone()
            if held is not None and held["owner"] != owner and held["until"] > latest:
                log_clock_set_back(f"the monitor's lease until {to_datetime(held['until'])}")
            row = connection.execute(
                "INSERT INTO leases (name, owner, until, fence) VALUES (?, ?, ?, 1)"
                " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until,"
                " fence = fence + (owner != excluded.owner)"
                " WHERE owner = excluded.owner OR until < ? OR until > ? RETURNING fence",
                (LEASE_NAME, owner, to_milliseconds(until), to_milliseconds(now), latest),
            ).fetchone()
            return row[0] if row else None

    def release_lease(self, owner: str) -> None:
        """Clear the owner and the end of the lease, but not the fencing token."""
        with self.writing() as connection:
            connection.execute("UPDATE leases SET owner = '', until = 0 WHERE owner = ?", (owner,))

    def read_lease(self, within: float | None = None) -> Lease | None:
        """Read the row; `within` is not needed, because in WAL mode a reader waits for no writer."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM leases WHERE name = ?", (LEASE_NAME,)).fetchone()
        if row is None:
            return None
        report = LeaderReport.model_validate_json(row["report"] or "{}")
        return Lease(row["owner"], to_datetime(row["until"]), row["fence"], report)

    def update_leader_report(self, owner: str, changes: Mapping[str, Any]) -> None:
        """Merge the changes into the JSON of the row."""
        with self.writing() as connection:
            connection.execute(
                "UPDATE leases SET report = json_patch(coalesce(report, '{}'), ?)"
                " WHERE name = ? AND owner = ?",
                (json.dumps(changes), LEASE_NAME, owner),
            )
