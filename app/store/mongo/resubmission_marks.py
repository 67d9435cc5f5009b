"""Keep the field `never_resubmitted` true: a document that has it is the source of no other document."""

from collections.abc import Iterable
from itertools import islice

from pymongo.collection import Collection

from app.store.mongo.types import Document

_BATCH_SIZE = 1000  # uuids


def mark_resubmitted(tasks: Collection[Document], uuids: Iterable[str | None]) -> None:
    """Remove the field of the documents with these uuids; None is no uuid.

    This must be durable before a task that is resubmitted from them is stored. If no such task is stored
    then, their next look-ups search in vain, and no harm is done.
    """
    if known := [uuid for uuid in uuids if uuid is not None]:
        marked = {"uuid": {"$in": known}, "never_resubmitted": True}
        tasks.update_many(marked, {"$unset": {"never_resubmitted": ""}})


def mark_sources_of_earlier_versions(tasks: Collection[Document]) -> None:
    """Remove the field of documents from which an earlier version has resubmitted tasks since.

    Earlier versions do not know the field: on another host during an upgrade, or after a downgrade. Their
    documents lack it.
    """
    wanted = {"resubmitted_from": {"$exists": True}, "never_resubmitted": {"$exists": False}}
    sources = (document["resubmitted_from"] for document in tasks.find(wanted, {"resubmitted_from": 1}))
    while batch := list(islice(sources, _BATCH_SIZE)):
        mark_resubmitted(tasks, batch)
