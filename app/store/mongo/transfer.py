"""Copies of the documents in MongoDB."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import bson
from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from app.errors import CopyFailed
from app.models.api_key import ApiKey
from app.store.mongo.database import MongoDatabase
from app.store.mongo.entries import (
    VERBATIM,
    compare_with_document,
    decode_entry,
    document_to_entry,
    encode_without_added_fields,
    entry_to_document,
    find_key_of_entry,
)
from app.store.mongo.keys import document_to_key, key_to_document
from app.store.mongo.older_server import OF_OLDER_SERVER, list_stored_forms, parse_stored_task
from app.store.mongo.resubmission_marks import mark_resubmitted
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document
from app.store.transfer import (
    ADDED,
    PRESENT,
    Entry,
    ImportResult,
    Progress,
    StoreContent,
    StoreTransfer,
    explain_key_conflict,
    explain_record_conflict,
    explain_reused_key,
    is_same_key,
)

_IMPORT_TIMEOUT = 60.0  # seconds for one batch
_READ_TIMEOUT = 6 * 3600.0  # seconds for all documents: the server counts all batches of a query together
_READ_BATCH = 200  # documents; by default a batch has 16 MB, which take ten times as much once decoded
_SNAPSHOT_TOO_OLD = {239, 246}  # SnapshotTooOld, SnapshotUnavailable
_SNAPSHOT_WIRE_VERSION = 13  # of MongoDB 5.0


class MongoTransfer(MongoDatabase, StoreTransfer):
    """The documents of all records and keys."""

    def copy_database(self, target: Path, progress: Progress) -> bool:
        """Return False: a database of MongoDB is no file."""
        return False

    @contextmanager
    def reading_all(self, *, snapshot: bool = True) -> Iterator[StoreContent]:
        """Read all documents from the primary, at one moment if the servers are a replica set.

        Without a snapshot, a document that exists at the beginning is read exactly once, because its place in
        the collection does not change. Only a reservation may be deleted, and made again elsewhere; so
        reservations are read again at the end.
        """
        with self.operating(_READ_TIMEOUT), _explaining_old_snapshots():
            has_snapshot = snapshot and self._can_show_snapshots()
            with self.client.start_session(snapshot=has_snapshot) as session:
                keys = self._to_read(self.api_keys, has_snapshot).find(session=session)
                yield StoreContent(
                    "MongoDB",
                    has_snapshot,
                    self.tasks.estimated_document_count(),
                    [document_to_key(document) for document in keys.sort("created_at", ASCENDING)],
                    _read_documents(self._to_read(self.tasks, has_snapshot), session),
                )

    def _can_show_snapshots(self) -> bool:
        hello = self.client.admin.command("hello")
        is_replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
        return is_replicated and hello["maxWireVersion"] >= _SNAPSHOT_WIRE_VERSION

    def _to_read(self, collection: Collection[Document], has_snapshot: bool) -> Collection[Document]:
        """Return the collection with what its primary has acknowledged; a snapshot has a level of its own."""
        level = None if has_snapshot else ReadConcern("majority")
        return collection.with_options(read_concern=level)

    def import_keys(self, keys: Iterable[ApiKey]) -> list[ImportResult]:
        """Insert the missing keys one by one."""
        with self.operating(_IMPORT_TIMEOUT):
            return list(map(self._import_key, keys))

    def _import_key(self, key: ApiKey) -> ImportResult:
        stored = self.api_keys.find_one({"_id": key.id})
        if stored is not None:
            is_same = is_same_key(document_to_key(stored), key)
            return PRESENT if is_same else explain_key_conflict(key, has_same_id=True)
        document = key_to_document(key)
        if key.is_valid(self.now()):
            document["valid_name"] = key.name
        try:
            self.api_keys.insert_one(document)
        except DuplicateKeyError:
            return explain_key_conflict(key, has_same_id=False)
        return ADDED

    def import_entries(self, entries: Sequence[Entry]) -> list[ImportResult]:
        """Look up all documents of the batch, and insert the missing ones."""
        with self.operating(_IMPORT_TIMEOUT):
            results = self._find_present(entries)
            missing = [number for number in range(len(entries)) if number not in results]
            records = [record for number in missing if (record := entries[number].record) is not None]
            mark_resubmitted(self.tasks, (record.resubmitted_from for record in records))
            refused = self._insert([entry_to_document(entries[number]) for number in missing])
            for place, number in enumerate(missing):
                results[number] = (
                    self._explain_refusal(entries[number], refused[place]) if (place in refused) else ADDED
                )
            return [results[number] for number in range(len(entries))]

    def _find_present(self, entries: Sequence[Entry]) -> dict[int, ImportResult]:
        """Return the results of those entries whose uuid or `_id` is used already, by their numbers."""
        own = {number: entry for number, entry in enumerate(entries) if entry.bson is None}
        older = {number: entry for number, entry in enumerate(entries) if entry.bson is not None}
        return self._find_own(own) | self._find_older(older)

    def _find_own(self, entries: Mapping[int, Entry]) -> dict[int, ImportResult]:
        uuids = [key for entry in entries.values() if (key := find_key_of_entry(entry))]
        stored = {document["uuid"]: document for document in self.tasks.find({"uuid": {"$in": uuids}})}
        found = self.tasks.find({"task.uuid": {"$in": list_stored_forms(uuids)}}, {"uuid": 1, "task": 1})
        of_older_server = {
            uuid
            for document in found
            if document.get("uuid") != (uuid := str(parse_stored_task(document).get("uuid")))
        }
        results = {}
        for number, entry in entries.items():
            key = find_key_of_entry(entry)
            if key in stored:
                results[number] = compare_with_document(entry, stored[key])
            elif key in of_older_server:
                results[number] = explain_record_conflict(key)
        return results

    def _find_older(self, entries: Mapping[int, Entry]) -> dict[int, ImportResult]:
        plain = {number: decode_entry(entry) for number, entry in entries.items()}
        wanted = {"_id": {"$in": [document["_id"] for document in plain.values()]}}
        found = self.tasks.with_options(codec_options=VERBATIM).find(wanted) if plain else ()
        stored = {bson.encode({"_id": document["_id"]}): document for document in found}
        results = {}
        for number, document in plain.items():
            other = stored.get(bson.encode({"_id": document["_id"]}))
            if other is not None:
                is_same = encode_without_added_fields(other) == encode_without_added_fields(document)
                results[number] = PRESENT if is_same else explain_record_conflict(str(document["_id"]))
        return results

    def _insert(self, documents: Sequence[Document]) -> dict[int, Document]:
        """Insert the documents; return the server's errors by the places of the documents refused.

        Raises:
            BulkWriteError: An error is not about a key that is used already.
        """
        if not documents:
            return {}
        try:
            self.tasks.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            faults = (error.details or {}).get("writeErrors", [])
            if not faults or any(fault["code"] != 11000 for fault in faults):
                raise
            return {fault["index"]: fault for fault in faults}
        return {}

    def _explain_refusal(self, entry: Entry, fault: Document) -> ImportResult:
        uuid = find_key_of_entry(entry)
        key = entry.record.idempotency_key if entry.record else None
        if "idempotency_key" in fault.get("keyPattern", {}):
            owner = self.tasks.find_one({"idempotency_key": key}, {"uuid": 1}) or {}
            return explain_reused_key(uuid, owner.get("uuid"))
        return explain_record_conflict(uuid)


@contextmanager
def _explaining_old_snapshots() -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code not in _SNAPSHOT_TOO_OLD:
            raise
        raise CopyFailed(
            "MongoDB no longer has the snapshot that was being read: raise its parameter"
            " minSnapshotHistoryWindowInSeconds, or give --no-snapshot"
        ) from error


def _read_documents(tasks: Collection[Document], session: ClientSession) -> Iterator[Entry]:
    """Yield the records of this service, the reservations among them last, then those of the older server."""
    own: Document = {"$nor": [*OF_OLDER_SERVER]}
    reservations = []
    for document in tasks.find(own, session=session, batch_size=_READ_BATCH).sort("_id", ASCENDING):
        if document.get("is_reserved"):
            reservations.append(document["_id"])
        else:
            yield document_to_entry(document)
    for id_ in reservations:
        found = tasks.find_one({"_id": id_}, session=session)
        if found is not None:
            yield document_to_entry(found)
    verbatim = tasks.with_options(codec_options=VERBATIM)
    older = verbatim.find(
        {"$or": [*OF_OLDER_SERVER]}, session=session, allow_disk_use=True, batch_size=_READ_BATCH
    )
    for document in older.sort(NEWEST_FIRST):
        yield document_to_entry(document, is_older=True)
