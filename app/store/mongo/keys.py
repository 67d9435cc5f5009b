"""The API keys."""

from datetime import datetime

from pymongo import ASCENDING

from app.models.api_key import ApiKey
from app.store.mongo.database import MongoDatabase, answering
from app.store.mongo.types import Document


class MongoKeys(MongoDatabase):
    def add_key(self, key: ApiKey) -> None:
        document = key.model_dump(exclude={"id", "grant"})
        with answering():
            self.api_keys.insert_one({"_id": key.id, **document, "grant": key.grant.model_dump(mode="json")})

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
            return self.api_keys.update_one(wanted, {"$set": {"revoked_at": at}}).modified_count == 1

    def key_used(self, id_: str, at: datetime) -> None:
        with answering():
            self.api_keys.update_one({"_id": id_}, {"$set": {"last_used_at": at}})


def _key(document: Document) -> ApiKey:
    return ApiKey.model_validate({**document, "id": document["_id"]})
