"""The records, and the lease of the process that polls."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from pymongo import ASCENDING, DESCENDING, ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.record import Change, OpenJob, TaskRecord
from app.outages import RepeatFilter
from app.store import CLOCK_TOLERANCE, NEVER, log_impossible
from app.store.mongo.database import MongoDatabase, answering
from app.store.mongo.documents import dumped, new_document, plain, read_record, state_fields
from app.store.mongo.older_server import OF_OLDER_SERVER, read_job_id, read_state, stored_uuids, stored_words
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(600, by_message=True))  # every polling cycle meets the same document

_Read = TypeVar("_Read")
_LONG_AGO = datetime.fromtimestamp(0, UTC)

_OPEN_JOB_FIELDS = (
    "uuid",
    "slurm_job_id",
    "slurm_job_state",
    "slurm_username",
    "created_at",
    "job.submit_time",
    "alarm_at",
    "taken_over_at",
)


class MongoRecords(MongoDatabase):
    _stamped: int | None = None  # the fence that this process has marked open records with

    def add(self, record: TaskRecord) -> None:
        document = new_document(record)
        with answering():
            self._refuse_uuid_of_older_server(record.uuid)
            try:
                self.tasks.insert_one(document)
            except DuplicateKeyError as error:
                self._add_in_place_of_a_failed_one(record, document, error)

    def _refuse_uuid_of_older_server(self, uuid: str) -> None:
        """Raise DuplicateUuid for a uuid that only documents of the older server have."""
        wanted = {"task.uuid": {"$in": stored_uuids([uuid])}, "uuid": {"$ne": uuid}}
        taken = self.tasks.find_one(wanted, {"slurm_job_id": 1}, sort=NEWEST_FIRST)
        if taken is not None:
            raise DuplicateUuid(uuid, read_job_id(taken.get("slurm_job_id")))

    def _add_in_place_of_a_failed_one(
        self, record: TaskRecord, document: Document, error: DuplicateKeyError
    ) -> None:
        failed = {**_this_reservation(record), "submission_error": {"$ne": None}}
        del failed["created_at"], document["_id"]
        try:
            if self.tasks.replace_one(failed, document).modified_count == 1:
                return
        except DuplicateKeyError:  # of the idempotency key
            pass
        is_key = "idempotency_key" in (error.details or {}).get("keyPattern", {})
        field = "idempotency_key" if is_key else "uuid"
        value = record.idempotency_key if field == "idempotency_key" else record.uuid
        taken = self.tasks.find_one({field: value}, {"slurm_job_id": 1}) or {}
        raise DuplicateUuid(record.uuid, taken.get("slurm_job_id")) from None

    def release(self, record: TaskRecord) -> None:
        with answering():
            self.tasks.delete_one(_this_reservation(record))

    def fail(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        changes = {"submission_error": reason, "is_reserved": False, "updated_at": at}
        with answering():
            result = self.tasks.update_one(
                {**_this_reservation(record), "submission_error": None},
                {"$set": changes, "$unset": {"idempotency_key": ""}},
            )
            return result.modified_count == 1

    def accept(
        self, record: TaskRecord, job_id: int, state: JobState, at: datetime, warnings: Sequence[str] = ()
    ) -> bool:
        changes = {
            "slurm_job_id": job_id,
            "is_reserved": False,
            **state_fields(state),
            "updated_at": at,
            "warnings": list(warnings),
            "submission_error": None,
        }
        with answering():
            return self.tasks.update_one(_this_reservation(record), {"$set": changes}).modified_count == 1

    def by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        with answering(within):
            document = self.tasks.find_one({"idempotency_key": key})
            return read_record(document) if document else None

    def by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        with answering(within):
            found = self.tasks.find({"uuid": {"$in": list(uuids)}})
            records = {document["uuid"]: read_record(document) for document in found}
            if missing := [uuid for uuid in uuids if uuid not in records]:
                records |= self._newest_of_older_server(missing)
            return records

    def _newest_of_older_server(self, uuids: Sequence[str]) -> dict[str, TaskRecord]:
        found = self.tasks.find({"task.uuid": {"$in": stored_uuids(uuids)}})
        records = map(read_record, found.sort([(field, ASCENDING) for field, _ in NEWEST_FIRST]))
        return {record.uuid: record for record in records}  # the newest comes last

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        with answering():
            either = {"$in": [job_id, str(job_id)]}  # the older server may have stored ids as strings
            document = self.tasks.find_one(
                {"slurm_job_id": either}, sort=[("created_at", DESCENDING), ("_id", DESCENDING)]
            )
            return read_record(document) if document else None

    def by_state(self, state: JobState, usernames: Collection[str] | None, limit: int) -> list[TaskRecord]:
        with answering():
            is_unknown = state is JobState.UNKNOWN
            wanted: Document = self._read_as_unknown() if is_unknown else {"slurm_job_state": state.value}
            if usernames is not None:
                wanted["slurm_username"] = {"$in": list(usernames)}
            found = self.tasks.find(wanted).sort(NEWEST_FIRST)
            return list(_all_readable(found.limit(limit), read_record))

    def _read_as_unknown(self) -> Document:
        """Return a condition for the records whose state is read as UNKNOWN.

        It lists the words, so that an index returns the records in their order. No state at all is read as
        UNKNOWN only in records of the older server.
        """
        other_words = stored_words(JobState.UNKNOWN)
        words = self.tasks.distinct("slurm_job_state", {"slurm_job_state": other_words})
        has_state: Document = {"slurm_job_state": {"$ne": None}}
        return {"slurm_job_state": {"$in": [*words, None]}, "$or": [has_state, *OF_OLDER_SERVER]}

    def usernames(self) -> list[str]:
        with answering():
            return [name for name in self.tasks.distinct("slurm_username") if isinstance(name, str)]

    def open_jobs(self) -> list[OpenJob]:
        with answering():
            found = self.tasks.find({"is_open": True}, dict.fromkeys(_OPEN_JOB_FIELDS, 1))
            return list(_all_readable(found, _open_job))

    def ended_since(self, at: datetime, limit: int) -> list[OpenJob]:
        ended = {
            "is_open": False,
            "updated_at": {"$gte": at},
            "slurm_job_id": {"$ne": None},
            "slurm_job_state": {"$ne": JobState.UNKNOWN.value},
        }
        with answering():
            found = self.tasks.find(ended, dict.fromkeys((*_OPEN_JOB_FIELDS, "job.array_tasks"), 1))
            return list(_all_readable(found.sort("updated_at", DESCENDING).limit(limit), _open_job))

    def count_open(self, caller: str) -> int:
        with answering():
            return sum(
                self.tasks.count_documents({flag: True, "caller": caller})
                for flag in ("is_open", "is_reserved")
            )

    def reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        made = [{"created_at": {"$lt": before}}, {"created_at": {"$gt": after}}]
        with answering():
            found = self.tasks.find({"is_reserved": True, "$or": made})
            return [read_record(document) for document in found]

    def apply(self, changes: Iterable[Change], fence: int) -> int:
        updates = [_update(change, fence) for change in changes]
        if not updates:
            return 0
        with answering():
            return self.tasks.bulk_write(updates, ordered=False).modified_count

    def lead(self, owner: str, now: datetime, until: datetime) -> int | None:
        latest = until + CLOCK_TOLERANCE
        over = [{"until": {"$lt": now}}, {"until": {"$gt": latest}}]
        free = {"_id": "monitor", "$or": [{"owner": owner}, *over]}
        grown = {"$add": [{"$ifNull": ["$fence", 0]}, {"$cond": [{"$eq": ["$owner", owner]}, 0, 1]}]}
        taken = {"owner": {"$literal": owner}, "until": until, "fence": grown}
        with answering():
            try:
                held = self.leases.find_one_and_update(
                    free, [{"$set": taken}], upsert=True, return_document=ReturnDocument.BEFORE
                )
            except DuplicateKeyError:  # it exists and another process holds it
                return None
            held = held or {"owner": "", "until": now, "fence": 0}
            if held["owner"] != owner and held["until"] > latest:
                log_impossible(f"the monitor's lease until {held['until']}")
            fence = int(held.get("fence") or 0) + int(held["owner"] != owner)
            if fence != self._stamped:
                self._stamp(fence)
            return fence

    def _stamp(self, fence: int) -> None:
        """Marks all that an earlier leader may still want to change: from now on its writes find nothing."""
        for field in ("is_open", "is_reserved"):
            self.tasks.update_many({field: True, **_not_after(fence - 1)}, {"$set": {"fence": fence}})
        self._stamped = fence

    def resign(self, owner: str) -> None:
        with answering():
            self.leases.update_one(
                {"_id": "monitor", "owner": owner}, {"$set": {"owner": "", "until": _LONG_AGO}}
            )


def _all_readable(documents: Iterable[Document], read: Callable[[Document], _Read]) -> Iterator[_Read]:
    """Yield what `read` returns of each document. A document that cannot be read is logged and left out."""
    for document in documents:
        try:
            yield read(document)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            logger.exception("the document %s cannot be read", document["_id"])


def _open_job(item: Document) -> OpenJob:
    """Return what a polling cycle reads of a document.

    Raises:
        ValueError: The older server left out what polling needs, or wrote it in a form of its own.
    """
    job_id, created_at, username = map(item.get, ("slurm_job_id", "created_at", "slurm_username"))
    job_id = read_job_id(job_id)
    if job_id is None or not isinstance(created_at, datetime) or not isinstance(username, str):
        raise ValueError("its job cannot be polled without a job id, a time of creation and a user name")
    job = item.get("job") or {}
    return OpenJob(
        item["uuid"],
        job_id,
        read_state(item.get("slurm_job_state")),
        username,
        max(created_at, _LONG_AGO),
        job.get("submit_time"),
        item.get("alarm_at"),
        job.get("array_tasks") is not None,
        "taken_over_at" in item,
    )


def _this_reservation(record: TaskRecord) -> Document:
    return {
        "uuid": record.uuid,
        "created_at": record.created_at,
        "slurm_job_id": None,
        "slurm_job_state": None,
    }


def _not_after(fence: int) -> Document:
    """Matches what no leader after that one has marked."""
    return {"fence": {"$not": {"$gt": fence}}}


def _update(change: Change, fence: int) -> UpdateOne:
    changes: Document = {
        **state_fields(change.after),
        "is_reserved": False,
        "updated_at": change.at,
        "fence": fence,
        "alarm_at": change.alarm_at,
    }
    wanted: Document = {"uuid": change.uuid, "slurm_job_state": None, **_not_after(fence)}
    if change.before is None:
        wanted |= {"is_reserved": True, "created_at": change.reserved_at}
        changes["submission_error"] = change.submission_error
    else:
        wanted["slurm_job_state"] = stored_words(change.before)
    if change.job is not None:
        changes["job"] = plain(change.job.model_dump())
    update: Document = {"$set": changes}
    if change.notifications:
        wanted["notifications.id"] = {"$nin": [item.id for item in change.notifications]}
        update["$push"] = {"notifications": {"$each": dumped(change.notifications)}}
    return UpdateOne(wanted, update)
