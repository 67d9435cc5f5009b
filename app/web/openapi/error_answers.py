"""Describe the answers to requests that fail."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from app.errors import (
    Forbidden,
    IdentityProviderUnavailable,
    NotAuthenticated,
    SlurmProxyError,
    StoreUnavailable,
    TooManyRequests,
    UnsupportedEncoding,
)
from app.models.answers import Error, SlurmAnswer
from app.web.openapi.examples import make_example_answer
from app.web.openapi.operation import Operation
from app.web.openapi.schemas import REF, Schema

_ERROR: Schema = {"$ref": REF + Error.__name__}
_SLURM_ANSWER: Schema = {"$ref": REF + SlurmAnswer.__name__}


@dataclass(frozen=True, slots=True)
class _Fault:
    """One code of an error answer, with its meaning and an example of the answer."""

    code: str
    meaning: str
    example: dict[str, Any]


def _http_fault(code: str, meaning: str, sentence: str) -> _Fault:
    return _Fault(code, meaning, {"error": sentence, "code": code})


_HTTP = {
    404: _http_fault("not_found", "There is no route with this path.", "there is no such route"),
    405: _http_fault(
        "method_not_allowed",
        "The route does not support this method; the header `Allow` names those that it supports.",
        "this route accepts only GET",
    ),
    413: _http_fault(
        "request_entity_too_large",
        "The body is larger than 1 MiB.",
        "The data value transmitted exceeds the capacity limit",
    ),
    500: _http_fault(
        "internal_error",
        "The server failed because of a fault of its own; its log has the cause.",
        "the server failed; its log says why",
    ),
}
_ACCESS = (NotAuthenticated, Forbidden, TooManyRequests, IdentityProviderUnavailable, StoreUnavailable)


def build_error_answers(operation: Operation) -> Schema:
    """Return the error answers of an operation, by status, each with its codes."""
    statuses: dict[int, dict[str, _Fault]] = {405: {}, 500: {}}
    if "{" in operation.path:
        statuses[404] = {}
    if operation.body is not None:
        statuses[413] = {}
    for status in statuses:
        statuses[status][_HTTP[status].code] = _HTTP[status]
    retried = set() if operation.is_public else {429, 503}
    for error in operation.errors:
        statuses.setdefault(error.status, {})[error.code] = _fault_of(error)
        retried |= {error.status} if error.retry_after is not None else set()
    if operation.body is not None:
        statuses[UnsupportedEncoding.status] = {UnsupportedEncoding.code: _fault_of(UnsupportedEncoding)}
    if not operation.is_public:
        for error in _ACCESS:
            statuses.setdefault(error.status, {})[error.code] = _fault_of(error)
    others = [_SLURM_ANSWER] if operation.passes_on else []  # slurmrestd's own answer may have any status
    return {
        str(status): _describe_error_answer(faults.values(), status in retried, others)
        for status, faults in sorted(statuses.items())
    }


def _describe_error_answer(faults: Collection[_Fault], has_retry_after: bool, others: list[Schema]) -> Schema:
    """Return the description of one error answer; `others`: further schemas of its body."""
    schema = {"allOf": [_ERROR], "properties": {"code": {"enum": [fault.code for fault in faults]}}}
    examples = {fault.code: {"summary": fault.meaning, "value": fault.example} for fault in faults}
    described: Schema = {
        "description": "\n".join(f"`{fault.code}`: {fault.meaning}" for fault in faults),
        "content": {
            "application/json": {
                "schema": {"anyOf": [schema, *others]} if others else schema,
                "examples": examples,
            }
        },
    }
    if has_retry_after:
        described["headers"] = {
            "Retry-After": {
                "description": "How many seconds to wait before the next attempt.",
                "required": not others,
                "schema": {"type": "integer"},
            }
        }
    return described


def _fault_of(error: type[SlurmProxyError]) -> _Fault:
    return _Fault(error.code, (error.__doc__ or "").partition("\n")[0], make_example_answer(error))


def list_error_codes() -> list[str]:
    """Return the codes of all errors that callers see."""
    found = {fault.code for fault in _HTTP.values()}
    classes = SlurmProxyError.__subclasses__()
    while classes:
        error = classes.pop()
        classes += error.__subclasses__()
        if error.status != SlurmProxyError.status:
            found.add(error.code)
    return sorted(found)
