"""The records in MongoDB."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.models.record import Change, OpenJob, TaskRecord
from app.models.record_state import RecordState
from app.store.clock import NEVER
from app.store.mongo.changes import change_to_update
from app.store.mongo.database import NOT_DURABLE, MongoDatabase
from app.store.mongo.documents import (
    OPEN_JOB_FIELDS,
    STATE_FIELDS,
    build_state_fields,
    document_to_open_job,
    document_to_record,
    document_to_state,
    record_to_document,
)
from app.store.mongo.older_server import list_stored_forms, parse_stored_job_id
from app.store.mongo.read_documents import read_all
from app.store.mongo.resubmission_marks import mark_resubmitted
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document
from app.store.records import RecordStore


class MongoRecordStore(MongoDatabase, RecordStore):
    """The records as documents, one each, with their notifications inside."""

    def add_record(self, record: TaskRecord) -> None:
        """Insert the document; unique indexes refuse a second one."""
        document = record_to_document(record)
        with self.operating():
            self._refuse_uuid_of_older_server(record.uuid)
            mark_resubmitted(self.tasks, [record.resubmitted_from])
            try:
                self.tasks.insert_one(document)
            except DuplicateKeyError as error:
                self._replace_failed_record(record, document, error)

    def _refuse_uuid_of_older_server(self, uuid: str) -> None:
        """Check that no document of the older server has this uuid.

        Raises:
            DuplicateUuid: A document of the older server has it.
        """
        wanted = {"task.uuid": {"$in": list_stored_forms([uuid])}, "uuid": {"$ne": uuid}}
        taken = self.tasks.find_one(wanted, {"slurm_job_id": 1}, sort=NEWEST_FIRST)
        if taken is not None:
            raise DuplicateUuid(uuid, parse_stored_job_id(taken.get("slurm_job_id")))

    def _replace_failed_record(
        self, record: TaskRecord, document: Document, error: DuplicateKeyError
    ) -> None:
        """Replace the record with the same uuid if the submission of that record failed.

        Raises:
            DuplicateUuid: The uuid or the idempotency key is used already.
        """
        failed = {**_match_reservation(record), "submission_error": {"$ne": None}}
        del failed["created_at"], document["_id"]
        document.pop("never_resubmitted", None)  # a task may have been resubmitted from the failed one
        try:
            if self.tasks.replace_one(failed, document).modified_count == 1:
                return
        except DuplicateKeyError:  # of the idempotency key
            pass
        is_key = "idempotency_key" in (error.details or {}).get("keyPattern", {})
        wanted = {"idempotency_key": record.idempotency_key} if is_key else {"uuid": record.uuid}
        taken = self.tasks.find_one(wanted, {"slurm_job_id": 1}) or {}
        raise DuplicateUuid(record.uuid, taken.get("slurm_job_id")) from None

    def release_reservation(self, record: TaskRecord) -> None:
        """Delete the document of a reservation."""
        with self.operating():
            self.tasks.delete_one(_match_reservation(record))

    def fail_reservation(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        """Store the reason, and free the idempotency key."""
        changes = {"submission_error": reason, "is_reserved": False, "updated_at": at}
        with self.operating():
            result = self.tasks.update_one(
                {**_match_reservation(record), "submission_error": None},
                {"$set": changes, "$unset": {"idempotency_key": ""}},
            )
            return result.modified_count == 1

    def accept_job(
        self,
        record: TaskRecord,
        job_id: int,
        state: JobState,
        at: datetime,
        warnings: Sequence[str] = (),
        *,
        durable: bool = True,
    ) -> bool:
        """Store the job, unless the document has a job already."""
        tasks = self.tasks if durable else self.tasks.with_options(write_concern=NOT_DURABLE)
        changes = {
            "slurm_job_id": job_id,
            "is_reserved": False,
            **build_state_fields(state),
            "updated_at": at,
            "warnings": list(warnings),
            "submission_error": None,
        }
        with self.operating():
            return tasks.update_one(_match_reservation(record), {"$set": changes}).modified_count == 1

    def find_by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        """Find the document by idempotency key."""
        with self.operating(within):
            document = self.tasks.find_one({"idempotency_key": key})
            return document_to_record(document) if document else None

    def find_by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        """Find the documents by `uuid`; look for the other uuids among those of the older server."""
        with self.operating(within):
            found = self.tasks.find({"uuid": {"$in": list(uuids)}})
            records = {document["uuid"]: document_to_record(document) for document in found}
            if missing := [uuid for uuid in uuids if uuid not in records]:
                records |= self._find_newest_of_older_server(missing)
            return records

    def find_states(self, uuids: Sequence[str]) -> dict[str, RecordState]:
        """Read a few fields of the documents, and whole documents of the older server that have ended."""
        with self.operating():
            found = self.tasks.find({"uuid": {"$in": list(uuids)}}, dict.fromkeys(STATE_FIELDS, 1))
            states = {document["uuid"]: document_to_state(document) for document in found}
            if missing := [uuid for uuid in uuids if uuid not in states]:
                older = self._find_newest_of_older_server(missing)
                states |= {uuid: RecordState.of(record) for uuid, record in older.items()}
            return states

    def _find_newest_of_older_server(self, uuids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return the newest record of the older server for each uuid that has one."""
        found = self.tasks.find({"task.uuid": {"$in": list_stored_forms(uuids)}})
        records = map(document_to_record, found.sort([(field, ASCENDING) for field, _ in NEWEST_FIRST]))
        return {record.uuid: record for record in records}  # the newest comes last

    def find_by_job_id(self, job_id: int) -> TaskRecord | None:
        """Find the newest document with that job id."""
        with self.operating():
            either = {"$in": [job_id, str(job_id)]}  # the older server may have stored ids as strings
            document = self.tasks.find_one({"slurm_job_id": either}, sort=NEWEST_FIRST)
            return document_to_record(document) if document else None

    def list_usernames(self) -> list[str]:
        """Return the distinct names in the documents."""
        with self.operating():
            return [name for name in self.tasks.distinct("slurm_username") if isinstance(name, str)]

    def list_open_jobs(self) -> list[OpenJob]:
        """Read a few fields of all open documents."""
        with self.operating():
            found = self.tasks.find({"is_open": True}, dict.fromkeys(OPEN_JOB_FIELDS, 1))
            return list(read_all(found, document_to_open_job))

    def list_ended_jobs(self, since: datetime, limit: int) -> list[OpenJob]:
        """Read a few fields of the documents that were closed last."""
        ended = {
            "is_open": False,
            "updated_at": {"$gte": since},
            "slurm_job_id": {"$ne": None},
            "slurm_job_state": {"$ne": JobState.UNKNOWN.value},
        }
        with self.operating():
            found = self.tasks.find(ended, dict.fromkeys((*OPEN_JOB_FIELDS, "job.array_tasks"), 1))
            return list(read_all(found.sort("updated_at", DESCENDING).limit(limit), document_to_open_job))

    def count_open_tasks(self, caller: str) -> int:
        """Count the caller's documents by their flags `is_open` and `is_reserved`."""
        with self.operating():
            return sum(
                self.tasks.count_documents({flag: True, "caller": caller})
                for flag in ("is_open", "is_reserved")
            )

    def list_reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        """Find the documents with the flag `is_reserved`."""
        made = [{"created_at": {"$lt": before}}, {"created_at": {"$gt": after}}]
        with self.operating():
            found = self.tasks.find({"is_reserved": True, "$or": made})
            return [document_to_record(document) for document in found]

    def apply_changes(self, changes: Iterable[Change], fence: int) -> int:
        """Write all changes as one bulk of conditional updates."""
        updates = [change_to_update(change, fence) for change in changes]
        if not updates:
            return 0
        with self.operating():
            return self.tasks.bulk_write(updates, ordered=False).modified_count


def _match_reservation(record: TaskRecord) -> Document:
    """Return a condition for the document of this record, as long as there is no job."""
    return {
        "uuid": record.uuid,
        "created_at": record.created_at,
        "slurm_job_id": None,
        "slurm_job_state": None,
    }
