"""Copies of a whole store: read all of its content, and add the content of another store."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.models.api_key import ApiKey
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.store.clock import StoreClock

Progress = Callable[[int, int], None]  # how much is done, and of how much


@dataclass(frozen=True, slots=True)
class Entry:
    """One record on its way from one store to another."""

    record: TaskRecord | None  # None if this release cannot read it
    bson: bytes | None = None  # the document of the older server, unchanged; MongoDB stores this


@dataclass(frozen=True, slots=True)
class StoreContent:
    """The content of a store, to be read once and in order.

    Attributes:
        source: The kind of the store.
        is_snapshot: Whether all entries are of one moment. Otherwise each entry is as it was when it was
            read, and none is missing that was acknowledged before the reading began.
        record_count: The number of records when the reading began.
        keys: The API keys.
        entries: The records. Of those of the older server, the newest come first.
    """

    source: str
    is_snapshot: bool
    record_count: int
    keys: Sequence[ApiKey]
    entries: Iterator[Entry]


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Outcome of importing one record or key."""

    was_added: bool = False
    conflict: str | None = None  # why it was neither added nor there already


ADDED = ImportResult(was_added=True)
PRESENT = ImportResult()  # the store has it already, with the same content


class StoreTransfer(StoreClock, Protocol):
    """A store that can be copied, and filled from a copy.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def copy_database(self, target: Path, progress: Progress) -> bool:
        """Copy the database, as it is at one moment, into the empty file `target`.

        Return False if such a store is no file. Then `reading_all` is the way to copy it.

        Raises:
            CopyFailed: The copy cannot be written, or is damaged.
        """

    def reading_all(self, *, snapshot: bool = True) -> AbstractContextManager[StoreContent]:
        """Return a context in which the content of the store can be read.

        Args:
            snapshot: Read all entries as of one moment, if the database can do that.

        Raises:
            CopyFailed: A record cannot be read, or the database can no longer show that moment.
        """

    def import_keys(self, keys: Iterable[ApiKey]) -> list[ImportResult]:
        """Add the keys that are missing, without changing any key of the store."""

    def import_entries(self, entries: Sequence[Entry]) -> list[ImportResult]:
        """Add the records that are missing, each atomically, without changing any record of the store."""


def release_claims(record: TaskRecord) -> TaskRecord:
    """Return the record without claims on its notifications.

    A claimed notification becomes due at the time at which its claim would have expired.
    """
    if not any(item.status is NotificationStatus.CLAIMED for item in record.notifications):
        return record
    return record.model_copy(update={"notifications": tuple(map(_release_claim, record.notifications))})


def _release_claim(item: Notification) -> Notification:
    if item.status is not NotificationStatus.CLAIMED:
        return item
    return item.model_copy(update={"status": NotificationStatus.DUE, "claim": None})


def record_to_json(record: TaskRecord) -> dict[str, Any]:
    """Return the fields of a record as values of JSON, which `TaskRecord` reads.

    `never_resubmitted` is left out: the other store may have a task that was resubmitted from this one.
    """
    fields = record.model_dump(mode="json", exclude={"task", "notifications", "never_resubmitted"})
    items = [
        {**item.model_dump(mode="json", exclude={"params"}), "params": item.params}
        for item in record.notifications
    ]
    return {**fields, "task": record.task, "notifications": items}


def is_same_record(one: TaskRecord, other: TaskRecord) -> bool:
    """Return whether two records have the same content, apart from claims.

    To Python, true and 1 and 1.0 are equal, too; so their JSON is compared.
    """
    return _canonical_text(one) == _canonical_text(other)


def is_same_key(one: ApiKey, other: ApiKey) -> bool:
    """Return whether two keys have the same content, apart from their last use."""
    unused = {"last_used_at": None}
    return one.model_copy(update=unused) == other.model_copy(update=unused)


def _canonical_text(record: TaskRecord) -> str:
    return json.dumps(record_to_json(release_claims(record)), sort_keys=True)


def explain_key_conflict(key: ApiKey, has_same_id: bool) -> ImportResult:
    """Return the result for a key that the store cannot take."""
    why = "is in the store with other content" if has_same_id else "has the name of another valid key"
    return ImportResult(conflict=f"the key {key.id} ({key.name}) {why}")


def explain_record_conflict(uuid: str) -> ImportResult:
    """Return the result for a record whose uuid has other content in the store."""
    return ImportResult(conflict=f"the task {uuid} is in the store with other content")


def explain_reused_key(uuid: str, owner: str | None) -> ImportResult:
    """Return the result for a record whose idempotency key belongs to the task `owner`."""
    return ImportResult(conflict=f"the idempotency key of the task {uuid} belongs to the task {owner}")
