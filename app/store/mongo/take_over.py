"""Give a key of our own to each document that has none: those of the older server and of earlier versions.

`uuid`, with a unique index, is the field by which this service finds and changes a record. Documents of the
older server only have `task.uuid`, and two of them may have the same: the newest gets it as its key, each
other one gets a key with its `_id` behind it. Only fields of our own are added.

The documents are taken in batches, the newest first. Each process starts with the newest document that has
no key yet, so that any number of processes may work at the same time, and may be killed at any moment.
"""

import logging
from collections.abc import Sequence

import pymongo
from pymongo import DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from app.job_state import JobState
from app.models.record import RecordKind
from app.models.rules import MAX_JOB_ID
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)

_BATCH_SIZE = 1000  # documents that are changed by one command
_BATCH_TIMEOUT = 60.0  # seconds: many documents may take a busy database longer than a request may last
_MAX_CONFLICTS = 100  # commands in a row that other processes may get in the way of

WITHOUT_KEY: Document = {"uuid": None}
NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]
KEY_INDEXES = (
    IndexModel([("uuid", 1)], unique=True, sparse=True),
    IndexModel(NEWEST_FIRST, name="without_key", partialFilterExpression=WITHOUT_KEY),
)

_FINAL_WORDS = [state.value for state in JobState if state.is_final]
_IS_OLDER: Document = {"$eq": [{"$type": "$notifications"}, "missing"]}
_TEXT_OF_UUID: Document = {"$convert": {"input": "$task.uuid", "to": "string", "onError": "", "onNull": ""}}
_JOB_ID: Document = {"$convert": {"input": "$slurm_job_id", "to": "long", "onError": 0, "onNull": 0}}
_IS_OPEN: Document = {
    "$and": [
        {"$not": [{"$in": ["$slurm_job_state", _FINAL_WORDS]}]},
        {"$in": [{"$type": "$slurm_job_id"}, ["int", "long", "double", "string"]]},
        {"$gt": [_JOB_ID, 0]},
        {"$lte": [_JOB_ID, MAX_JOB_ID]},
        {"$eq": [{"$type": "$created_at"}, "date"]},
        {"$eq": [{"$type": "$slurm_username"}, "string"]},
    ]
}


def take_over(tasks: Collection[Document]) -> int:
    """Give each document without a key its key, and return how many this process did.

    The indexes KEY_INDEXES must exist.
    """
    taken_over = conflicts = 0
    while True:
        try:
            with pymongo.timeout(_BATCH_TIMEOUT):
                batch = list(tasks.find(WITHOUT_KEY, {"task.uuid": 1}).sort(NEWEST_FIRST).limit(_BATCH_SIZE))
                if not batch:
                    break
                taken_over += _take_over_batch(tasks, batch)
            conflicts = 0
        except DuplicateKeyError:  # another process was faster; the next look tells which keys are free
            conflicts += 1
            if conflicts > _MAX_CONFLICTS:
                raise
    if taken_over:
        logger.info("took over %d documents that had no key yet", taken_over)
    return taken_over


def _take_over_batch(tasks: Collection[Document], batch: Sequence[Document]) -> int:
    uuids = {document["_id"]: _text_of_uuid(document) for document in batch}
    known = [uuid for uuid in uuids.values() if uuid is not None]
    used = {owner["uuid"] for owner in tasks.find({"uuid": {"$in": known}}, {"uuid": 1})}
    newest, others = [], []
    for id_, uuid in uuids.items():
        if uuid is None or uuid in used:
            others.append(id_)
        else:
            newest.append(id_)
            used.add(uuid)
    key_with_id: Document = {"$concat": [_TEXT_OF_UUID, "#", {"$toString": "$_id"}]}
    return _set_keys(tasks, newest, _TEXT_OF_UUID) + _set_keys(tasks, others, key_with_id)


def _set_keys(tasks: Collection[Document], ids: Sequence[object], key: Document) -> int:
    if not ids:
        return 0
    added: Document = {"uuid": key, **{name: _if_older(name, value) for name, value in _ADDED.items()}}
    return tasks.update_many({"_id": {"$in": ids}, **WITHOUT_KEY}, [{"$set": added}]).modified_count


_ADDED: Document = {
    "is_open": _IS_OPEN,
    "is_reserved": False,
    "kind": RecordKind.REGISTERED.value,
    "taken_over_at": "$$NOW",
}


def _if_older(name: str, value: object) -> Document:
    """Return an expression that leaves the field as it is in documents of our own."""
    return {"$cond": [_IS_OLDER, value, f"${name}"]}


def _text_of_uuid(document: Document) -> str | None:
    task = document.get("task")
    uuid = task.get("uuid") if isinstance(task, dict) else None
    return str(uuid) if isinstance(uuid, str | int) and not isinstance(uuid, bool) else None
