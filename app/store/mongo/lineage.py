"""Resubmitted tasks in MongoDB."""

from collections.abc import Iterable, Sequence

from pymongo.collection import Collection

from app.store.lineage import Descendant, LineageStore
from app.store.mongo.database import MongoDatabase
from app.store.mongo.errors import translating_errors
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document


def mark_resubmitted(tasks: Collection[Document], uuids: Iterable[str | None]) -> None:
    """Remove the field `never_resubmitted` of the documents with these uuids; None is no uuid.

    This must be durable before a task that is resubmitted from them is stored. If no such task is stored
    then, their next look-ups search in vain, and no harm is done.
    """
    if known := [uuid for uuid in uuids if uuid is not None]:
        marked = {"uuid": {"$in": known}, "never_resubmitted": True}
        tasks.update_many(marked, {"$unset": {"never_resubmitted": ""}})


class MongoLineageStore(MongoDatabase, LineageStore):
    """The field `resubmitted_from` of the documents."""

    def list_resubmissions(
        self, uuid: str, limit: int, usernames: Sequence[str] | None = None
    ) -> list[Descendant]:
        """Find the documents by the index of that field."""
        wanted: Document = {"resubmitted_from": uuid}
        if usernames is not None:
            wanted["slurm_username"] = {"$in": list(usernames)}
        with translating_errors():
            found = self.tasks.find(wanted, {"uuid": 1, "slurm_username": 1})
            return [
                Descendant(document["uuid"], document["slurm_username"])
                for document in found.sort(NEWEST_FIRST).limit(limit)
            ]
