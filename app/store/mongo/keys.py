"""The API keys."""

from contextlib import suppress
from datetime import datetime

from pymongo import ASCENDING, WriteConcern
from pymongo.errors import DuplicateKeyError

from app.models.api_key import ApiKey
from app.store.mongo.database import MongoDatabase, answering
from app.store.mongo.types import Document


class MongoKeys(MongoDatabase):
    def add_key(self, key: ApiKey) -> bool:
        """Add a key; see TaskStore.add_key.

        `valid_name` is unique, and stays until the key is revoked, or expired and replaced. Keys of earlier
        versions do not have it.
        """
        document = {
            "_id": key.id,
            **key.model_dump(exclude={"id", "grant"}),
            "grant": key.grant.model_dump(mode="json"),
            "valid_name": key.name,
        }
        is_expired = {"expires_at": {"$ne": None, "$lte": key.created_at}}
        with answering():
            self.api_keys.update_many({"valid_name": key.name, **is_expired}, {"$unset": {"valid_name": ""}})
            others = map(_key, self.api_keys.find({"name": key.name, "revoked_at": None}))
            if any(other.is_valid(key.created_at) for other in others):
                return False
            with suppress(DuplicateKeyError):
                self.api_keys.insert_one(document)
                return True
        return False

    def key(self, id_: str, within: float | None = None) -> ApiKey | None:
        with answering(within):
            document = self.api_keys.find_one({"_id": id_})
            return _key(document) if document else None

    def all_keys(self) -> list[ApiKey]:
        with answering():
            return [_key(document) for document in self.api_keys.find().sort("created_at", ASCENDING)]

    def revoke_key(self, id_: str, at: datetime) -> bool:
        with answering():
            wanted = {"_id": id_, "revoked_at": None}
            change = {"$set": {"revoked_at": at}, "$unset": {"valid_name": ""}}
            return self.api_keys.update_one(wanted, change).modified_count == 1

    def key_used(self, id_: str, at: datetime) -> None:
        keys = self.api_keys.with_options(write_concern=WriteConcern(w=1))  # losing it does no harm
        with answering():
            keys.update_one({"_id": id_}, {"$set": {"last_used_at": at}})


def _key(document: Document) -> ApiKey:
    return ApiKey.model_validate({**document, "id": document["_id"]})
