"""The connection to MongoDB, and the collections."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from bson import Int64
from bson.codec_options import TypeDecoder, TypeRegistry
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError

from app.clock import RemoteClock, steady_seconds
from app.errors import SettingsError, StoreUnavailable
from app.metrics import Metrics
from app.store.breaker import StoreBreaker
from app.store.mongo.errors import translating_errors
from app.store.mongo.indexes import create_key_index, create_task_indexes, create_window_index
from app.store.mongo.latency import LatencyListener
from app.store.mongo.resubmission_marks import mark_sources_of_earlier_versions
from app.store.mongo.take_over import take_over
from app.store.mongo.types import Document
from app.store.schema_version import SCHEMA_VERSION, UNVERSIONED, require_known_version

DURABLE = WriteConcern(w="majority", j=True)
NOT_DURABLE = WriteConcern(w=1, j=False)  # the primary has the change in memory

_CLOCK_INTERVAL = 30.0  # seconds between two readings of the server's clock
_CLOCK_TIMEOUT = 1.0  # seconds that a reading may take, once there was one
_INDEX_BUILD_TIMEOUT = 1800.0  # seconds
_SCHEMA_ID = "schema"
_NOT_ENCODED = "it cannot be read: percent-encode special characters in its user and password"


class _PlainInt(TypeDecoder):
    """A decoder that returns large numbers as plain integers, and not as Int64."""

    bson_type = Int64

    def transform_bson(self, value: int) -> int:
        return int(value)


def connect(uri: str, timeout: float, metrics: Metrics | None = None) -> "MongoClient[Document]":
    """Return a client whose operations take at most `timeout` seconds, and are counted in `metrics`.

    Raises:
        SettingsError: The address cannot be read.
    """
    if _has_stray_login(uri):
        raise SettingsError(f"MONGODB_URI: {_NOT_ENCODED}")
    try:
        return MongoClient(
            uri,
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",  # a time out of Python's range must not hide other records
            type_registry=TypeRegistry([_PlainInt()]),
            serverSelectionTimeoutMS=int(timeout * 1000),
            timeoutMS=int(timeout * 1000),
            event_listeners=[LatencyListener(metrics)] if metrics else [],
        )
    except (ConfigurationError, ValueError) as error:
        # The driver's message may hold a part of the password.
        raise SettingsError(f"MONGODB_URI: {_NOT_ENCODED if '@' in uri else error}") from error


def _has_stray_login(uri: str) -> bool:
    """Return whether a part of the user or password may be in a wrong place of the address.

    The driver takes such a part for a host, a database or an option, looks it up, and prints it.
    """
    plain = uri.partition("://")[2]
    hosts = re.split("[/?]", plain, maxsplit=1)[0]
    return plain.count("@") > min(hosts.count("@"), 1)


class MongoDatabase:
    """The collections of one store. Thread-safe; connects at the first use, and so after any fork."""

    def __init__(self, client: "MongoClient[Document]", database: str, collection: str) -> None:
        """Use a database of `client`; the names of all collections begin with `collection`."""
        self.client = client
        self._breaker = StoreBreaker()
        self._clock = RemoteClock(self._server_time)
        self._clock_tried = 0.0
        # An address may ask for reads from secondaries. These may be behind, and lack a revocation.
        primary = client.get_database(database, read_preference=ReadPreference.PRIMARY, write_concern=DURABLE)
        self.tasks: Collection[Document] = primary[collection]
        self.leases: Collection[Document] = primary[f"{collection}_leases"]
        self.windows: Collection[Document] = primary.get_collection(
            f"{collection}_windows", write_concern=NOT_DURABLE
        )  # losing a count in a crash does no harm
        self.reports: Collection[Document] = primary[f"{collection}_reports"]
        self.api_keys: Collection[Document] = primary[f"{collection}_keys"]
        self.schema: Collection[Document] = primary[f"{collection}_schema"]

    @contextmanager
    def operating(self, within: float | None = None) -> Iterator[None]:
        """Guard the operations in the block by the circuit breaker, and translate their errors.

        Args:
            within: Seconds for the whole block, instead of the configured time for each operation.

        Raises:
            StoreUnavailable: The circuit is open. `translating_errors` raises further exceptions.
        """
        with self._breaker.guarding(within), translating_errors(within):
            yield

    def prepare(self) -> None:
        """Create the indexes, and take over the documents of the older server; safe in several processes.

        Raises:
            StoreUnavailable: MongoDB does not answer.
            StoreRefused: An index is in the way, or a newer release wrote the database.
        """
        self.ping()  # within the configured time; building an index of many documents takes longer
        version = self.read_schema_version()
        require_known_version(version)
        with self.operating(_INDEX_BUILD_TIMEOUT):
            create_task_indexes(self.tasks)
            create_window_index(self.windows)
            create_key_index(self.api_keys)
        with self.operating():
            take_over(self.tasks)
            mark_sources_of_earlier_versions(self.tasks)
            if version < SCHEMA_VERSION:
                latest = {"$max": {"version": SCHEMA_VERSION}}  # another host may be newer
                self.schema.update_one({"_id": _SCHEMA_ID}, latest, upsert=True)

    def read_schema_version(self) -> int:
        """Return the version in the only document of the collection `…_schema`."""
        with self.operating():
            found = self.schema.find_one({"_id": _SCHEMA_ID})
            return int(found["version"]) if found else UNVERSIONED

    def count_records(self) -> int | None:
        """Return about how many records there are; None if the collection does not exist yet."""
        with self.operating():
            count = self.tasks.estimated_document_count()
            if count or self.tasks.database.list_collection_names(filter={"name": self.tasks.name}):
                return count
        return None

    def now(self) -> datetime:
        """Return the server's time, which is read twice a minute; a reading that fails changes nothing."""
        if not self._clock.is_known:
            self._clock.refresh()
        elif self._clock.age > _CLOCK_INTERVAL and steady_seconds() - self._clock_tried > _CLOCK_INTERVAL:
            self._clock_tried = steady_seconds()
            with suppress(StoreUnavailable):
                self._clock.refresh()
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def _server_time(self) -> datetime:
        with self.operating(_CLOCK_TIMEOUT if self._clock.is_known else None):
            local_time: datetime = self.client.admin.command("hello")["localTime"]
            return local_time.replace(tzinfo=UTC)

    def ping(self) -> None:
        """Return if MongoDB answers.

        Raises:
            StoreUnavailable: MongoDB does not answer.
        """
        with self.operating():
            self.client.admin.command("ping")

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
