"""The reports of processes, and the numbers that operators watch, in MongoDB."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from app.models.record import NotificationStatus
from app.store.health import Backlog, DueMessages, HealthStore, ProcessReport
from app.store.mongo.database import MongoDatabase
from app.store.mongo.older_server import parse_stored_state
from app.store.mongo.types import Document

_KEPT = timedelta(days=1)
_WAITING = (
    NotificationStatus.DUE,
    NotificationStatus.CLAIMED,
    NotificationStatus.RETRYING,
    NotificationStatus.GATHERED,
)


class MongoHealthStore(MongoDatabase, HealthStore):
    """The documents of a collection of reports, and aggregations that begin with an index."""

    def write_report(self, report: ProcessReport, within: float) -> None:
        """Replace the document of that name, as durably as a task is stored."""
        document = {"host": report.host, "at": report.at, "figures": dict(report.figures)}
        with self.operating(within):
            self.reports.replace_one({"_id": report.name}, document, upsert=True)
            self.reports.delete_many({"at": {"$lt": report.at - _KEPT}})

    def list_reports(self, host: str, since: datetime) -> list[ProcessReport]:
        """Find the documents of the host."""
        with self.operating():
            found = self.reports.find({"host": host, "at": {"$gte": since}}).sort("_id")
            return [ProcessReport(item["_id"], item["host"], item["at"], item["figures"]) for item in found]

    def delete_report(self, name: str) -> None:
        """Delete the document."""
        with self.operating():
            self.reports.delete_one({"_id": name})

    def measure_backlog(self, now: datetime) -> Backlog:
        """Read the documents that are reserved, or have an open notification or a dead letter."""
        with self.operating():
            reserved = self.tasks.find({"is_reserved": True}, {"created_at": 1})
            made = [document["created_at"] for document in reserved]
            due = self._group_notifications(
                _WAITING,
                {"notifications.attempt_after": {"$lte": now}},
                {"_id": "$notifications.method", "at": {"$min": "$notifications.attempt_after"}},
            )
            dead = self._group_notifications(
                [NotificationStatus.DEAD], {}, {"_id": None, "at": {"$max": "$notifications.created_at"}}
            )
        return Backlog(
            reservations=len(made),
            oldest_reservation_at=min(made, default=None),
            due={item["_id"]: DueMessages(item["count"], item["at"]) for item in due},
            dead=sum(item["count"] for item in dead),
            newest_dead_at=max((item["at"] for item in dead), default=None),
        )

    def count_tasks(self) -> dict[str, int]:
        """Count the entries of the index for each state; the older server has stored other words, too."""
        counts: dict[str, int] = {}
        with self.operating():
            for value in self.tasks.distinct("slurm_job_state"):
                name = "none" if value is None else parse_stored_state(value).value
                found = self.tasks.count_documents({"slurm_job_state": {"$eq": value}})
                counts[name] = counts.get(name, 0) + found
        return counts

    def count_notifications(self) -> dict[tuple[str, str], int]:
        """Count the notifications of each status but `sent`."""
        unsent = [status for status in NotificationStatus if status is not NotificationStatus.SENT]
        key = {"method": "$notifications.method", "status": "$notifications.status"}
        with self.operating():
            found = self._group_notifications(unsent, {}, {"_id": key})
        return {(item["_id"]["method"], item["_id"]["status"]): item["count"] for item in found}

    def _group_notifications(
        self, statuses: Iterable[NotificationStatus], wanted: Document, group: Document
    ) -> list[Document]:
        """Return the groups of the notifications in these statuses, each with the field `count`."""
        in_status: Document = {"notifications.status": {"$in": [status.value for status in statuses]}}
        fields = ("method", "status", "attempt_after", "created_at")
        stages: list[Document] = [
            {"$match": in_status},
            {"$project": {f"notifications.{field}": 1 for field in fields}},
            {"$unwind": "$notifications"},
            {"$match": {**in_status, **wanted}},
            {"$group": {**group, "count": {"$sum": 1}}},
        ]
        return list(self.tasks.aggregate(stages))
