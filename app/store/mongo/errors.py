"""Turn the driver's errors into those of this service."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from app.errors import RecordTooLarge, StoreRefused, StoreTimeout, StoreUnavailable

_WRONG_LOGIN = {18, 8000}  # of MongoDB, and of MongoDB Atlas
_NOT_AUTHORIZED = 13
_TOO_LARGE = {10334, 17419, 17420}  # the server's codes for a document of more than 16 MB


@contextmanager
def translating_errors(within: float | None = None) -> Iterator[None]:
    """Raise errors of the driver inside the block as errors of this service.

    Args:
        within: Seconds for the whole block, instead of the configured time for each operation.

    Raises:
        RecordTooLarge: A document is too large for MongoDB.
        StoreRefused: MongoDB refuses the login, or does not let the user write.
        StoreTimeout: MongoDB does not answer in time.
        StoreUnavailable: MongoDB reports another failure.
    """
    try:
        with pymongo.timeout(within) if within is not None else nullcontext():
            yield
    except DocumentTooLarge as error:
        raise RecordTooLarge(f"MongoDB cannot store the record: {error}") from error
    except BulkWriteError as error:
        codes = {fault["code"] for fault in (error.details or {}).get("writeErrors", ())}
        if codes and codes <= _TOO_LARGE:
            raise RecordTooLarge("MongoDB cannot store the record: it is too large") from error
        raise _build_unavailable(error) from error
    except OperationFailure as error:
        raise _translate_operation_failure(error) from error
    except PyMongoError as error:
        raise _build_unavailable(error) from error
    except AttributeError as error:
        # pymongo 4.20 raises this in place of its own error if a primary steps down in find_one_and_update().
        if not isinstance(error.obj, RawBSONDocument):
            raise
        raise StoreUnavailable("MongoDB does not answer: its primary has changed") from error


def _translate_operation_failure(error: OperationFailure) -> StoreUnavailable:
    """Return the error for a failure that MongoDB reports."""
    if error.code in _WRONG_LOGIN:
        return StoreRefused("MongoDB refuses the login: correct user, password and authSource")
    if error.code == _NOT_AUTHORIZED:
        return StoreRefused("MongoDB does not let this user write the database: grant the role readWrite")
    return _build_unavailable(error)


def _build_unavailable(error: PyMongoError) -> StoreUnavailable:
    """Return the error with the driver's message, without its time-outs, its servers and the raw answer."""
    noise = r" \(configured timeouts: [^)]*\)|, (Timeout|full error): .*"
    message = re.sub(noise, "", str(error), flags=re.DOTALL)
    is_timeout = error.timeout and not isinstance(error, OperationFailure)  # which the server reports
    return (StoreTimeout if is_timeout else StoreUnavailable)(f"MongoDB does not answer: {message}")
