"""How errors of the driver become those of the service."""

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from app.errors import StoreTimeout, StoreUnavailable
from app.store.mongo.errors import translating_errors


def test_the_drivers_fault_at_a_change_of_the_primary_is_an_outage_of_the_store() -> None:
    answer = RawBSONDocument(bson.encode({"code": 189, "errmsg": "Primary stepped down"}))
    with pytest.raises(StoreUnavailable, match="its primary has changed"), translating_errors():
        answer.update({})  # type: ignore[attr-defined]  # as pymongo 4.20 does


def test_any_other_missing_attribute_remains_a_fault() -> None:
    with pytest.raises(AttributeError), translating_errors():
        object().missing  # type: ignore[attr-defined]  # noqa: B018


def test_the_raw_answer_of_the_server_is_not_in_the_message() -> None:
    with pytest.raises(StoreUnavailable) as failure, translating_errors():
        raise OperationFailure("operation exceeded time limit", 50, {"ok": 0, "code": 50})
    assert str(failure.value) == "MongoDB does not answer: operation exceeded time limit"


@pytest.mark.parametrize(
    "error",
    [NetworkTimeout("timed out"), ServerSelectionTimeoutError("no primary"), WaitQueueTimeoutError("")],
)
def test_a_time_out_of_the_driver_is_distinguished_from_other_failures(error: PyMongoError) -> None:
    with pytest.raises(StoreTimeout), translating_errors():
        raise error


@pytest.mark.parametrize(
    "error", [ExecutionTimeout("slow", 50), AutoReconnect("closed"), NotPrimaryError("")]
)
def test_an_error_that_the_server_reports_is_no_time_out(error: PyMongoError) -> None:
    with pytest.raises(StoreUnavailable) as failure, translating_errors():
        raise error
    assert not isinstance(failure.value, StoreTimeout)
