"""Keep the field `never_resubmitted` true: a document that has it is the source of no other document."""

from collections.abc import Iterable
from itertools import islice

from pymongo.collection import Collection

from app.store.mongo.types import Document

_BATCH_SIZE = 1000  # uuids


def mark_resubmitted(tasks: Collection[Document], uuids: Iterable[str | None]) -> None:
    """Remove the field from the documents with these uuids; a None among the uuids is skipped.

    This must be durable before a task that is resubmitted from them is stored. If that task is not stored
    after all, later look-ups of these documents make one query more, and find nothing.
    """
    if known := [uuid for uuid in uuids if uuid is not None]:
        marked = {"uuid": {"$in": known}, "never_resubmitted": True}
        tasks.update_many(marked, {"$unset": {"never_resubmitted": ""}})


def mark_sources_of_earlier_versions(tasks: Collection[Document]) -> None:
    """Remove the field from documents whose tasks an earlier version has resubmitted since.

    An earlier version, on another host during an upgrade or after a downgrade, neither writes nor removes
    the field.
    """
    wanted = {"resubmitted_from": {"$exists": True}, "never_resubmitted": {"$exists": False}}
    sources = (document["resubmitted_from"] for document in tasks.find(wanted, {"resubmitted_from": 1}))
    while batch := list(islice(sources, _BATCH_SIZE)):
        mark_resubmitted(tasks, batch)
