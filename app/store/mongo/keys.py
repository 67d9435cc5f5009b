"""The API keys in MongoDB."""

from contextlib import suppress
from datetime import datetime

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from app.models.api_key import ApiKey
from app.store.keys import KeyStore
from app.store.mongo.database import NOT_DURABLE, MongoDatabase
from app.store.mongo.types import Document


class MongoKeyStore(MongoDatabase, KeyStore):
    """The API keys as documents, one each."""

    def add_key(self, key: ApiKey) -> bool:
        """Insert the key, with its name in the unique field `valid_name`.

        The field stays until the key is revoked, or expired and replaced. Keys of earlier versions lack it.
        """
        document = {**key_to_document(key), "valid_name": key.name}
        is_expired = {"expires_at": {"$ne": None, "$lte": key.created_at}}
        with self.operating():
            self.api_keys.update_many({"valid_name": key.name, **is_expired}, {"$unset": {"valid_name": ""}})
            others = map(document_to_key, self.api_keys.find({"name": key.name, "revoked_at": None}))
            if any(other.is_valid(key.created_at) for other in others):
                return False
            with suppress(DuplicateKeyError):
                self.api_keys.insert_one(document)
                return True
        return False

    def find_key(self, id_: str, within: float | None = None) -> ApiKey | None:
        """Find the key by id."""
        with self.operating(within):
            document = self.api_keys.find_one({"_id": id_})
            return document_to_key(document) if document else None

    def list_keys(self) -> list[ApiKey]:
        """Read all keys."""
        with self.operating():
            return [
                document_to_key(document) for document in self.api_keys.find().sort("created_at", ASCENDING)
            ]

    def revoke_key(self, id_: str, at: datetime) -> bool:
        """Store the time of the revocation, and free the name."""
        with self.operating():
            wanted = {"_id": id_, "revoked_at": None}
            change = {"$set": {"revoked_at": at}, "$unset": {"valid_name": ""}}
            return self.api_keys.update_one(wanted, change).modified_count == 1

    def record_key_use(self, id_: str, at: datetime) -> None:
        """Store the time without waiting for the disk; losing it in a crash does no harm."""
        keys = self.api_keys.with_options(write_concern=NOT_DURABLE)
        with self.operating():
            keys.update_one({"_id": id_}, {"$set": {"last_used_at": at}})


def key_to_document(key: ApiKey) -> Document:
    """Return the document of a key, without the field `valid_name`."""
    return {
        "_id": key.id,
        **key.model_dump(exclude={"id", "grant"}),
        "grant": key.grant.model_dump(mode="json"),
    }


def document_to_key(document: Document) -> ApiKey:
    """Return the key in a document."""
    return ApiKey.model_validate({**document, "id": document["_id"]})
