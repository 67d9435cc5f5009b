"""The store in MongoDB: one document for each task, its notifications inside.

Writes wait for a majority and its journal: `w: 1` alone loses acknowledged records in a crash.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bson import Int64
from bson.codec_options import TypeDecoder, TypeRegistry
from pymongo import ASCENDING, DESCENDING, MongoClient, ReturnDocument, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError, DuplicateKeyError, PyMongoError

from app.errors import DuplicateUuid, SettingsError, StoreUnavailable
from app.job_state import JobState
from app.models.record import Change, Notification, NotificationStatus, OpenJob, TaskRecord
from app.store import Claim, Outcome

Document = dict[str, Any]

_LONG_AGO = datetime.fromtimestamp(0, UTC)

_OPEN_JOB_FIELDS = (
    "task.uuid",
    "slurm_job_id",
    "slurm_job_state",
    "slurm_username",
    "created_at",
    "job.submit_time",
)


class _PlainInt(TypeDecoder):
    """Large numbers come back as plain ones, as they were given."""

    bson_type = Int64

    def transform_bson(self, value: int) -> int:
        return int(value)


def connect(uri: str, timeout: float) -> "MongoClient[Document]":
    """A client whose operations take at most `timeout` seconds; SettingsError for a bad address."""
    try:
        return MongoClient(
            uri,
            tz_aware=True,
            type_registry=TypeRegistry([_PlainInt()]),
            serverSelectionTimeoutMS=int(timeout * 1000),
            timeoutMS=int(timeout * 1000),
        )
    except (ConfigurationError, ValueError) as error:
        raise SettingsError(f"MONGODB_URI: {error}") from error


class MongoStore:
    """Thread-safe; opens its connections when it is first used, so after any fork."""

    def __init__(self, client: "MongoClient[Document]", database: str, collection: str) -> None:
        self._client = client
        concern = WriteConcern(w="majority", j=True)
        self._tasks: Collection[Document] = client[database].get_collection(collection, write_concern=concern)
        self._stamped: int | None = None
        self._leases: Collection[Document] = client[database].get_collection(
            f"{collection}_leases", write_concern=concern
        )

    def prepare(self) -> None:
        with _answering():
            self._tasks.create_index([("task.uuid", ASCENDING)], unique=True)
            self._tasks.create_index([("idempotency_key", ASCENDING)], unique=True, sparse=True)
            self._tasks.create_index([("slurm_job_id", ASCENDING), ("created_at", DESCENDING)])
            for field in ("is_open", "is_reserved"):  # the few records that a cycle looks for
                self._tasks.create_index([(field, ASCENDING)], partialFilterExpression={field: True})
            self._tasks.create_index(
                [("notifications.method", ASCENDING), ("notifications.attempt_after", ASCENDING)]
            )

    def add(self, record: TaskRecord) -> None:
        document = _document(record)
        with _answering():
            try:
                self._tasks.insert_one(document)
            except DuplicateKeyError as error:
                self._add_in_place_of_a_failed_one(record, document, error)

    def _add_in_place_of_a_failed_one(
        self, record: TaskRecord, document: Document, error: DuplicateKeyError
    ) -> None:
        failed = {**_this_reservation(record), "submission_error": {"$ne": None}}
        del failed["created_at"], document["_id"]
        try:
            if self._tasks.replace_one(failed, document).modified_count == 1:
                return
        except DuplicateKeyError:  # of the idempotency key
            pass
        field = "idempotency_key" if "idempotency_key" in str(error.details) else "task.uuid"
        value = record.idempotency_key if field == "idempotency_key" else record.uuid
        taken = self._tasks.find_one({field: value}, {"slurm_job_id": 1}) or {}
        raise DuplicateUuid(record.uuid, taken.get("slurm_job_id")) from None

    def release(self, record: TaskRecord) -> None:
        with _answering():
            self._tasks.delete_one(_this_reservation(record))

    def fail(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        changes = {"submission_error": reason, "is_reserved": False, "updated_at": at}
        with _answering():
            result = self._tasks.update_one(
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
            **_state(state),
            "updated_at": at,
            "warnings": list(warnings),
            "submission_error": None,
        }
        with _answering():
            return self._tasks.update_one(_this_reservation(record), {"$set": changes}).modified_count == 1

    def by_idempotency_key(self, key: str) -> TaskRecord | None:
        with _answering():
            document = self._tasks.find_one({"idempotency_key": key})
            return _record(document) if document else None

    def by_uuids(self, uuids: Sequence[str]) -> dict[str, TaskRecord]:
        with _answering():
            found = map(_record, self._tasks.find({"task.uuid": {"$in": list(uuids)}}))
            return {record.uuid: record for record in found}

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        with _answering():
            document = self._tasks.find_one(
                {"slurm_job_id": job_id}, sort=[("created_at", DESCENDING), ("_id", DESCENDING)]
            )
            return _record(document) if document else None

    def open_jobs(self) -> list[OpenJob]:
        with _answering():
            found = self._tasks.find({"is_open": True}, dict.fromkeys(_OPEN_JOB_FIELDS, 1))
            return [
                OpenJob(
                    item["task"]["uuid"],
                    item["slurm_job_id"],
                    JobState(item["slurm_job_state"]),
                    item["slurm_username"],
                    item["created_at"],
                    (item.get("job") or {}).get("submit_time"),
                )
                for item in found
            ]

    def reservations(self, before: datetime) -> list[TaskRecord]:
        with _answering():
            found = self._tasks.find({"is_reserved": True, "created_at": {"$lt": before}})
            return [_record(document) for document in found]

    def apply(self, changes: Iterable[Change], fence: int) -> int:
        updates = [_update(change, fence) for change in changes]
        if not updates:
            return 0
        with _answering():
            return self._tasks.bulk_write(updates, ordered=False).modified_count

    def claim(self, method: str, token: str, now: datetime, until: datetime) -> Claim | None:
        due = {"method": method, "attempt_after": {"$lte": now}}
        with _answering():
            document = self._tasks.find_one_and_update(
                {"notifications": {"$elemMatch": due}},
                {
                    "$set": {
                        "notifications.$.status": NotificationStatus.CLAIMED.value,
                        "notifications.$.claim": token,
                        "notifications.$.attempt_after": until,
                    },
                    "$inc": {"notifications.$.attempts": 1},
                },
                return_document=ReturnDocument.AFTER,
            )
        if document is None:
            return None
        record = _record(document)
        return Claim(record.uuid, next(item for item in record.notifications if item.claim == token))

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        mine = {"id": claim.notification.id, "claim": claim.notification.claim}
        changes = {
            "notifications.$.status": outcome.status.value,
            "notifications.$.attempt_after": outcome.attempt_after,
            "notifications.$.last_error": outcome.error,
            "notifications.$.sent_at": outcome.at if outcome.status is NotificationStatus.SENT else None,
            "notifications.$.claim": None,
        }
        with _answering():
            result = self._tasks.update_one(
                {"task.uuid": claim.uuid, "notifications": {"$elemMatch": mine}}, {"$set": changes}
            )
            return result.modified_count == 1

    def lead(self, owner: str, now: datetime, until: datetime) -> int | None:
        free = {"_id": "monitor", "$or": [{"owner": owner}, {"until": {"$lt": now}}]}
        grown = {"$add": [{"$ifNull": ["$fence", 0]}, {"$cond": [{"$eq": ["$owner", owner]}, 0, 1]}]}
        taken = {"owner": {"$literal": owner}, "until": until, "fence": grown}
        with _answering():
            try:
                lease = self._leases.find_one_and_update(
                    free, [{"$set": taken}], upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # it exists and is somebody else's
                return None
            fence = int((lease or {})["fence"])
            if fence != self._stamped:
                self._stamp(fence)
            return fence

    def _stamp(self, fence: int) -> None:
        """Marks all that an earlier leader may still want to change: from now on its writes find nothing."""
        for field in ("is_open", "is_reserved"):
            self._tasks.update_many({field: True, **_not_after(fence - 1)}, {"$set": {"fence": fence}})
        self._stamped = fence

    def resign(self, owner: str) -> None:
        with _answering():
            self._leases.update_one(
                {"_id": "monitor", "owner": owner}, {"$set": {"owner": "", "until": _LONG_AGO}}
            )

    def ping(self) -> None:
        with _answering():
            self._client.admin.command("ping")

    def close(self) -> None:
        self._client.close()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB does not answer: {error}") from error


def _state(state: JobState | None) -> Document:
    return {
        "slurm_job_state": state.value if state else None,
        "is_open": state is not None and not state.is_settled,
    }


def _this_reservation(record: TaskRecord) -> Document:
    return {
        "task.uuid": record.uuid,
        "created_at": record.created_at,
        "slurm_job_id": None,
        "slurm_job_state": None,
    }


def _not_after(fence: int) -> Document:
    """Matches what no leader after that one has marked."""
    return {"fence": {"$not": {"$gt": fence}}}


def _document(record: TaskRecord) -> Document:
    document = {
        "task": record.task,
        "slurm_username": record.slurm_username,
        "slurm_job_id": record.slurm_job_id,
        "is_reserved": record.is_reserved,
        **_state(record.slurm_job_state),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "job": _plain(record.job.model_dump()) if record.job else None,
        "notifications": _dumped(record.notifications),
        "warnings": list(record.warnings),
        "submission_error": record.submission_error,
    }
    if record.idempotency_key is not None:  # its index is sparse
        document["idempotency_key"] = record.idempotency_key
    return document


def _plain(document: Document) -> Document:
    """Enumerations as plain words, which is all that BSON knows."""
    return {
        str(key): _plain(value) if isinstance(value, dict) else str(value) if _is_word(value) else value
        for key, value in document.items()
    }


def _is_word(value: object) -> bool:
    return isinstance(value, JobState | NotificationStatus)


def _record(document: Document) -> TaskRecord:
    """Old deployments' documents have fewer fields; what is not there is None."""
    return TaskRecord.model_validate(document)


def _update(change: Change, fence: int) -> UpdateOne:
    changes: Document = {**_state(change.after), "is_reserved": False, "updated_at": change.at}
    wanted: Document = {"task.uuid": change.uuid, "slurm_job_state": None, **_not_after(fence)}
    if change.before is None:
        wanted["is_reserved"] = True
        changes["submission_error"] = change.submission_error
    else:
        wanted["slurm_job_state"] = change.before.value
    if change.job is not None:
        changes["job"] = _plain(change.job.model_dump())
    update: Document = {"$set": changes}
    if change.notifications:
        update["$push"] = {"notifications": {"$each": _dumped(change.notifications)}}
    return UpdateOne(wanted, update)


def _dumped(notifications: Sequence[Notification]) -> list[Document]:
    return [_plain(item.model_dump()) for item in notifications]
