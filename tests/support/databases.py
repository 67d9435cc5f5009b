"""MongoDB databases for tests that need an empty one each."""

from typing import Any

from pymongo import MongoClient

from app.store.mongo import MongoStore, connect
from tests.support.tasks import new_uuid


class SharedDatabase:
    """A database whose indexes are made once: each test that asks for it finds its collections empty.

    To make and drop a database for each test takes a MongoDB ten times as long.
    """

    collection = "jobs"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.name = f"test_{new_uuid()}"
        self._client: MongoClient[Any] = connect(uri, 30)
        store = self.store()
        store.prepare()
        store.close()

    def store(self) -> MongoStore:
        """Return a store with a client of its own, as another process has."""
        return MongoStore(connect(self.uri, 5), self.name, self.collection)

    def empty(self) -> None:
        database = self._client[self.name]
        for name in database.list_collection_names():
            database[name].delete_many({})

    def close(self) -> None:
        self._client.drop_database(self.name)
        self._client.close()
