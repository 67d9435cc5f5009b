"""Resubmitted tasks in MongoDB."""

from collections.abc import Sequence

from app.store.lineage import Descendant, LineageStore
from app.store.mongo.database import MongoDatabase
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document


class MongoLineageStore(MongoDatabase, LineageStore):
    """The field `resubmitted_from` of the documents."""

    def list_resubmissions(
        self, uuid: str, limit: int, usernames: Sequence[str] | None = None
    ) -> list[Descendant]:
        """Find the documents by the index of that field."""
        wanted: Document = {"resubmitted_from": uuid}
        if usernames is not None:
            wanted["slurm_username"] = {"$in": list(usernames)}
        with self.operating():
            found = self.tasks.find(wanted, {"uuid": 1, "slurm_username": 1})
            return [
                Descendant(document["uuid"], document["slurm_username"])
                for document in found.sort(NEWEST_FIRST).limit(limit)
            ]
