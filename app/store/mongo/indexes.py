"""The indexes of the collections: one for each query."""

import logging
from collections.abc import Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from app.errors import StoreRefused
from app.store.mongo.list_indexes import LIST_INDEXES
from app.store.mongo.take_over import KEY_INDEXES
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)

_INDEX_EXISTS = {85, 86}  # under another name, or in another form

_TASK_INDEXES = (
    IndexModel([("idempotency_key", ASCENDING)], unique=True, sparse=True),
    IndexModel([("slurm_job_id", ASCENDING), ("created_at", DESCENDING)]),
    *(  # the few records that a polling cycle reads
        IndexModel([(field, ASCENDING)], partialFilterExpression={field: True})
        for field in ("is_open", "is_reserved")
    ),
    IndexModel([("updated_at", DESCENDING)], partialFilterExpression={"is_open": False}),
    IndexModel([("notifications.method", ASCENDING), ("notifications.attempt_after", ASCENDING)]),
    *(
        IndexModel([(f"notifications.{field}", ASCENDING)], sparse=True)
        for field in ("id", "status", "digest")
    ),
    IndexModel([("caller", ASCENDING)], partialFilterExpression={"is_open": True}),
)


def create_task_indexes(tasks: Collection[Document]) -> None:
    """Create the missing indexes of the records.

    An index that an operator has made in another form stays, unless the service needs a unique one.

    Raises:
        StoreRefused: An index has to be dropped first.
    """
    indexes = [*_TASK_INDEXES, *LIST_INDEXES, *KEY_INDEXES]
    try:
        tasks.create_indexes(indexes)
    except OperationFailure as error:
        if error.code not in _INDEX_EXISTS:
            raise
        _create_one_by_one(tasks, indexes)


def create_window_index(windows: Collection[Document]) -> None:
    """Create the index by which MongoDB deletes the windows of rate limits that have ended."""
    windows.create_index([("until", ASCENDING)], expireAfterSeconds=0)


def create_key_index(api_keys: Collection[Document]) -> None:
    """Create the index that keeps two valid API keys from having one name."""
    api_keys.create_index([("valid_name", ASCENDING)], unique=True, sparse=True)


def _create_one_by_one(tasks: Collection[Document], indexes: Sequence[IndexModel]) -> None:
    """Create each index that does not exist in another form.

    Raises:
        StoreRefused: A unique index exists in another form.
    """
    for index in indexes:
        name = index.document["name"]
        try:
            tasks.create_indexes([index])
        except OperationFailure as error:
            if error.code not in _INDEX_EXISTS:
                raise
            if index.document.get("unique"):
                raise StoreRefused(
                    f"drop the index {name} of the collection {tasks.name}: this service needs it in another"
                    " form"
                ) from error
            logger.warning(
                "the index %s of %s exists in another form, and is used as it is", name, tasks.name
            )
