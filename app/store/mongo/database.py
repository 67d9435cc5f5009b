"""The connection, its collections and their indexes."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime

import pymongo
from bson import Int64
from bson.codec_options import TypeDecoder, TypeRegistry
from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)

from app.clock import RemoteClock, steady_seconds
from app.errors import RecordUnfit, SettingsError, StoreRefused, StoreUnavailable
from app.store.mongo.take_over import KEY_INDEXES, NEWEST_FIRST, take_over
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)

_CLOCK_INTERVAL = 30.0  # seconds between two readings of the server's clock
_CLOCK_TIMEOUT = 1.0  # seconds that a reading may take, once there was one
_INDEX_BUILD_TIMEOUT = 1800.0  # seconds
_WRONG_LOGIN = {18, 8000}  # of MongoDB, and of MongoDB Atlas
_NOT_AUTHORIZED = 13
_INDEX_EXISTS = {85, 86}  # under another name, or in another form
_NOT_ENCODED = "it cannot be read: percent-encode special characters in its user and password"
_TOO_LARGE = {10334, 17419, 17420}  # the server's codes for a document of more than 16 MB


_TASK_INDEXES = (
    IndexModel([("idempotency_key", ASCENDING)], unique=True, sparse=True),
    IndexModel([("slurm_job_id", ASCENDING), ("created_at", DESCENDING)]),
    IndexModel([("slurm_job_state", ASCENDING), *NEWEST_FIRST]),
    IndexModel([("slurm_username", ASCENDING), ("slurm_job_state", ASCENDING), *NEWEST_FIRST]),
    *(  # the few records that a cycle looks for
        IndexModel([(field, ASCENDING)], partialFilterExpression={field: True})
        for field in ("is_open", "is_reserved")
    ),
    IndexModel([("updated_at", DESCENDING)], partialFilterExpression={"is_open": False}),
    IndexModel([("notifications.method", ASCENDING), ("notifications.attempt_after", ASCENDING)]),
    *(
        IndexModel([(f"notifications.{field}", ASCENDING)], sparse=True)
        for field in ("id", "status", "digest")
    ),
    IndexModel([("caller", ASCENDING)], partialFilterExpression={"is_open": True}),
)


class _PlainInt(TypeDecoder):
    """Large numbers come back as plain ones, as they were given."""

    bson_type = Int64

    def transform_bson(self, value: int) -> int:
        return int(value)


def connect(uri: str, timeout: float) -> "MongoClient[Document]":
    """Return a client whose operations take at most `timeout` seconds.

    Raises:
        SettingsError: The address cannot be read.
    """
    if _has_stray_login(uri):
        raise SettingsError(f"MONGODB_URI: {_NOT_ENCODED}")
    try:
        return MongoClient(
            uri,
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",  # a time that Python cannot hold must not hide other records
            type_registry=TypeRegistry([_PlainInt()]),
            serverSelectionTimeoutMS=int(timeout * 1000),
            timeoutMS=int(timeout * 1000),
        )
    except (ConfigurationError, ValueError) as error:
        words = str(error)
        if "@" in uri:  # the driver's words may hold a part of the password
            words = _NOT_ENCODED
        raise SettingsError(f"MONGODB_URI: {words}") from error


def _has_stray_login(uri: str) -> bool:
    """Return whether a part of the user or password may be outside its place.

    The driver takes such a part for a host, a database or an option, looks it up, and prints it.
    """
    plain = uri.partition("://")[2]
    hosts = re.split("[/?]", plain, maxsplit=1)[0]
    return plain.count("@") > min(hosts.count("@"), 1)


class MongoDatabase:
    """Thread-safe; opens its connections when it is first used, so after any fork."""

    def __init__(self, client: "MongoClient[Document]", database: str, collection: str) -> None:
        self.client = client
        self._clock = RemoteClock(self._server_time)
        self._clock_tried = 0.0
        concern = WriteConcern(w="majority", j=True)
        self.tasks: Collection[Document] = client[database].get_collection(collection, write_concern=concern)
        self.leases: Collection[Document] = client[database].get_collection(
            f"{collection}_leases", write_concern=concern
        )
        self.windows: Collection[Document] = client[database].get_collection(
            f"{collection}_windows", write_concern=WriteConcern(w=1)
        )  # to lose a count in a crash does no harm
        self.api_keys: Collection[Document] = client[database].get_collection(
            f"{collection}_keys", write_concern=concern
        )

    def prepare(self) -> None:
        """Make the indexes, and take over the documents of the older server; safe in several processes.

        Raises:
            StoreUnavailable: MongoDB does not answer, or refuses.
            StoreRefused: An index is in the way.
        """
        self.ping()  # within the configured time; building an index of many documents takes longer
        with answering(_INDEX_BUILD_TIMEOUT):
            _create_indexes(self.tasks, [*_TASK_INDEXES, *KEY_INDEXES])
            self.windows.create_index([("until", ASCENDING)], expireAfterSeconds=0)
            self.api_keys.create_index([("valid_name", ASCENDING)], unique=True, sparse=True)
        with answering():
            take_over(self.tasks)

    def record_count(self) -> int | None:
        """Return about how many records there are; None if the collection does not exist yet."""
        with answering():
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
        with answering(_CLOCK_TIMEOUT if self._clock.is_known else None):
            local_time: datetime = self.client.admin.command("hello")["localTime"]
            return local_time.replace(tzinfo=UTC)

    def ping(self) -> None:
        with answering():
            self.client.admin.command("ping")

    def close(self) -> None:
        self.client.close()


def _create_indexes(tasks: Collection[Document], indexes: Sequence[IndexModel]) -> None:
    """Create the indexes. One that an operator has made in another form stays, unless ours must be unique.

    Raises:
        StoreRefused: An index has to be dropped first.
    """
    try:
        tasks.create_indexes(indexes)
    except OperationFailure as error:
        if error.code not in _INDEX_EXISTS:
            raise
        for index in indexes:
            _create_index(tasks, index)


def _create_index(tasks: Collection[Document], index: IndexModel) -> None:
    name = index.document["name"]
    try:
        tasks.create_indexes([index])
    except OperationFailure as error:
        if error.code not in _INDEX_EXISTS:
            raise
        if index.document.get("unique"):
            words = (
                f"drop the index {name} of the collection {tasks.name}: this service needs it in another form"
            )
            raise StoreRefused(words) from error
        logger.warning("the index %s of %s exists in another form, and is used as it is", name, tasks.name)


@contextmanager
def answering(within: float | None = None) -> Iterator[None]:
    """`within`: seconds for what is done inside, instead of the configured time for each operation."""
    try:
        with pymongo.timeout(within) if within is not None else nullcontext():
            yield
    except DocumentTooLarge as error:
        raise RecordUnfit(f"MongoDB cannot keep it: {error}") from error
    except BulkWriteError as error:
        codes = {fault["code"] for fault in (error.details or {}).get("writeErrors", ())}
        if codes and codes <= _TOO_LARGE:
            raise RecordUnfit("MongoDB cannot keep a record: it is too large") from error
        raise StoreUnavailable(f"MongoDB does not answer: {_shortened(error)}") from error
    except OperationFailure as error:
        raise _operation_error(error) from error
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB does not answer: {_shortened(error)}") from error


def _shortened(error: PyMongoError) -> str:
    """Return the driver's message without its time-outs and its description of the topology."""
    return re.sub(r" \(configured timeouts: [^)]*\)|, Timeout: .*", "", str(error), flags=re.DOTALL)


def _operation_error(error: OperationFailure) -> StoreUnavailable:
    """Return the error for a failure that MongoDB reports."""
    if error.code in _WRONG_LOGIN:
        return StoreRefused("MongoDB refuses the login: correct user, password and authSource")
    if error.code == _NOT_AUTHORIZED:
        return StoreRefused("MongoDB does not let this user write the database: grant the role readWrite")
    return StoreUnavailable(f"MongoDB does not answer: {_shortened(error)}")
