"""Take over the documents of the older server, and give uuids to those of earlier versions of this service.

`uuid`, with a unique index, is the field by which this service finds and changes a record. Of the older
server's documents, only those of jobs that have not ended get this field. Its value is the task's uuid and
the `_id`, because two of these documents may have the same `task.uuid`. The other documents stay as they are,
and are found by `task.uuid`; the newest counts. Only fields of this service are added.

Each step is one command that changes all documents that are left. Therefore any number of processes may work
at the same time, and each of them may be killed at any moment.
"""

import logging

import pymongo
from pymongo import DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from app.job_state import JobState
from app.models.record import RecordKind
from app.models.rules import MAX_JOB_ID
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)

_TIMEOUT = 1800.0  # seconds, for each step

NEWEST_FIRST = [("created_at", DESCENDING), ("_id", DESCENDING)]
OF_EARLIER_VERSION: Document = {"uuid": None, "notifications": {"$exists": True}}
KEY_INDEXES = (
    IndexModel([("uuid", 1)], unique=True, sparse=True),
    IndexModel([("task.uuid", 1)]),
    IndexModel(NEWEST_FIRST, name="of_earlier_version", partialFilterExpression=OF_EARLIER_VERSION),
)


def _convert_to_text(field: str, types: list[str], otherwise: object) -> Document:
    """Return an expression for the text of a field that has one of these types, else for `otherwise`."""
    return {"$cond": [{"$in": [{"$type": f"${field}"}, types]}, {"$toString": f"${field}"}, otherwise]}


_FINAL_STATES = [state.value for state in JobState if state.is_final]
_TEXT_OF_UUID = _convert_to_text("task.uuid", ["string", "int", "long"], "")
_JOB_ID: Document = {"$convert": {"input": "$slurm_job_id", "to": "long", "onError": 0, "onNull": 0}}
_IS_OPEN: Document = {
    "$and": [
        {"$not": [{"$in": ["$slurm_job_state", _FINAL_STATES]}]},
        {"$in": [{"$type": "$slurm_job_id"}, ["int", "long", "double", "string"]]},
        {"$gt": [_JOB_ID, 0]},
        {"$lte": [_JOB_ID, MAX_JOB_ID]},
        {"$eq": [{"$type": "$created_at"}, "date"]},
        {"$eq": [{"$type": "$slurm_username"}, "string"]},
    ]
}
# An `_id` may be of any type. A random number replaces one that cannot be converted to text.
_TEXT_OF_ID = _convert_to_text("_id", ["objectId", "string", "int", "long"], {"$toString": {"$rand": {}}})
_KEY_WITH_ID: Document = {"$concat": [_TEXT_OF_UUID, "#", _TEXT_OF_ID]}
OPEN_OF_OLDER_SERVER: Document = {
    "slurm_job_state": {"$nin": _FINAL_STATES},  # for which there is an index
    "uuid": None,
    "notifications": {"$exists": False},
}


def take_over(tasks: Collection[Document]) -> int:
    """Take over the documents that are left; return how many this process changed.

    The indexes of the collection must exist.
    """
    fields = {"is_open": True, "is_reserved": False, "kind": RecordKind.REGISTERED.value}
    followed = _set_fields(
        tasks, OPEN_OF_OLDER_SERVER, _IS_OPEN, {"uuid": _KEY_WITH_ID, **fields, "taken_over_at": "$$NOW"}
    )
    if followed:
        logger.info("took over %d jobs of the older server that have not ended", followed)
    try:
        updated = _set_fields(tasks, OF_EARLIER_VERSION, True, {"uuid": _TEXT_OF_UUID})
    except DuplicateKeyError:
        updated = _set_fields(tasks, OF_EARLIER_VERSION, True, {"uuid": _KEY_WITH_ID})
    _close_ended_jobs(tasks)
    return followed + updated


def _close_ended_jobs(tasks: Collection[Document]) -> None:
    """Close the jobs whose end the older server has recorded, and announced, while it was used again."""
    ended = {"is_open": True, "slurm_job_state": {"$in": _FINAL_STATES}, "taken_over_at": {"$exists": True}}
    with pymongo.timeout(_TIMEOUT):
        if tasks.find_one(ended, {"_id": 1}) is not None:
            tasks.update_many(ended, {"$set": {"is_open": False}})


def _set_fields(tasks: Collection[Document], wanted: Document, condition: object, fields: Document) -> int:
    """Set fields of the documents that match `wanted` and meet `condition`; return how many were changed.

    An index shows whether a document matches `wanted`. If none does, nothing is written.
    """
    with pymongo.timeout(_TIMEOUT):
        if tasks.find_one(wanted, {"_id": 1}, sort=NEWEST_FIRST) is None:
            return 0
        return tasks.update_many({**wanted, "$expr": condition}, [{"$set": fields}]).modified_count
