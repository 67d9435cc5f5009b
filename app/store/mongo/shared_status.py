"""Keep the shared status in MongoDB."""

from datetime import datetime

from pymongo import WriteConcern
from pymongo.collection import Collection

from app.models.leader_report import LeaderReport
from app.store.lease import LEASE_NAME
from app.store.mongo.database import MongoDatabase
from app.store.mongo.types import Document
from app.store.shared_status import REPORT_PREFIX, OutageReport, SharedStatus, SharedStatusStore

_FIELDS = {"report.polled_at": 1, "report.uncovered": 1, "reason": 1, "since": 1, "until": 1}


class MongoSharedStatus(MongoDatabase, SharedStatusStore):
    """Documents of the collection of the lease, one for each reported outage."""

    def read_shared_status(self, now: datetime) -> SharedStatus:
        """Read the whole collection, which has few documents."""
        with self.operating():
            documents = {item.pop("_id"): item for item in self.leases.find({}, _FIELDS)}
        leader = LeaderReport.model_validate(documents.pop(LEASE_NAME, {}).get("report") or {})
        outages = {
            name.removeprefix(REPORT_PREFIX): OutageReport(item["reason"], item["since"], item["until"])
            for name, item in documents.items()
            if item["until"] >= now
        }
        return SharedStatus(leader.polled_at, outages, frozenset(leader.uncovered))

    def report_outage(self, reporter: str, report: OutageReport, now: datetime) -> None:
        """Replace the document of the process."""
        content = {"reason": report.reason, "since": report.since, "until": report.until}
        reports = self._reports_of_outages()
        with self.operating():
            reports.replace_one({"_id": REPORT_PREFIX + reporter}, content, upsert=True)
            reports.delete_many({"_id": {"$ne": LEASE_NAME}, "until": {"$lt": now}})

    def withdraw_outage(self, reporter: str) -> None:
        """Delete the document."""
        with self.operating():
            self._reports_of_outages().delete_one({"_id": REPORT_PREFIX + reporter})

    def _reports_of_outages(self) -> "Collection[Document]":
        return self.leases.with_options(write_concern=WriteConcern(w=1))
