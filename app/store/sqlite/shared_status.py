"""Keep the shared status in SQLite."""

import json
from datetime import datetime

from app.models.leader_report import LeaderReport
from app.store.lease import LEASE_NAME
from app.store.shared_status import REPORT_PREFIX, OutageReport, SharedStatus, SharedStatusStore
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import to_datetime, to_milliseconds


class SqliteSharedStatus(SqliteDatabase, SharedStatusStore):
    """Rows of the table `leases` beside the lease, one for each reported outage."""

    def read_shared_status(self, now: datetime) -> SharedStatus:
        """Read the whole table, which has few rows."""
        with self.reading() as connection:
            rows = connection.execute("SELECT name, until, report FROM leases").fetchall()
        leader = LeaderReport()
        outages = {}
        for row in rows:
            if row["name"] == LEASE_NAME:
                leader = LeaderReport.model_validate_json(row["report"] or "{}")
            elif row["name"].startswith(REPORT_PREFIX) and row["until"] >= to_milliseconds(now):
                reason, since = json.loads(row["report"])
                report = OutageReport(reason, to_datetime(since), to_datetime(row["until"]))
                outages[row["name"].removeprefix(REPORT_PREFIX)] = report
        return SharedStatus(leader.polled_at, outages, frozenset(leader.uncovered))

    def report_outage(self, reporter: str, report: OutageReport, now: datetime) -> None:
        """Replace the row of the process."""
        content = json.dumps([report.reason, to_milliseconds(report.since)])
        with self.writing() as connection:
            connection.execute(
                "DELETE FROM leases WHERE name GLOB ? AND until < ?",
                (f"{REPORT_PREFIX}*", to_milliseconds(now)),
            )
            connection.execute(
                "INSERT OR REPLACE INTO leases (name, owner, until, fence, report) VALUES (?, '', ?, 0, ?)",
                (REPORT_PREFIX + reporter, to_milliseconds(report.until), content),
            )

    def withdraw_outage(self, reporter: str) -> None:
        """Delete the row."""
        with self.writing() as connection:
            connection.execute("DELETE FROM leases WHERE name = ?", (REPORT_PREFIX + reporter,))
