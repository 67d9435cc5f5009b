"""Resubmitted tasks in MongoDB."""

from app.store.lineage import Descendant, LineageStore
from app.store.mongo.database import MongoDatabase
from app.store.mongo.errors import translating_errors
from app.store.mongo.take_over import NEWEST_FIRST


class MongoLineageStore(MongoDatabase, LineageStore):
    """The field `resubmitted_from` of the documents."""

    def list_resubmissions(self, uuid: str, limit: int) -> list[Descendant]:
        """Find the documents by the index of that field."""
        wanted, fields = {"resubmitted_from": uuid}, {"uuid": 1, "slurm_username": 1}
        with translating_errors():
            found = self.tasks.find(wanted, fields).sort(NEWEST_FIRST).limit(limit)
            return [Descendant(document["uuid"], document["slurm_username"]) for document in found]
