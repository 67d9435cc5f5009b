"""Build the OpenAPI 3.1 document from the operations and from the models that check requests."""

import copy
import re
from collections.abc import Collection, Mapping
from typing import TypeGuard

from pydantic import BaseModel

from app.messages.plan import Catalogue
from app.models.answers import Error, SlurmAnswer
from app.models.json_body import MAX_DEPTH, MAX_TEXT, MAX_VALUES
from app.models.rules import RULE
from app.models.username import build_username_schema
from app.version import read_version
from app.web.openapi.catalogue_tasks import describe_catalogue_tasks
from app.web.openapi.error_answers import build_error_answers, list_error_codes
from app.web.openapi.examples import REQUESTS
from app.web.openapi.operation import Operation
from app.web.openapi.operations import OPERATIONS
from app.web.openapi.parameters import PARAMETERS
from app.web.openapi.schemas import (
    CALLER_KEYS,
    REF,
    Schema,
    build_request_schemas,
    build_schemas,
    rules_to_descriptions,
)

_ABOUT = f"""Submits JSON tasks to a Slurm cluster as the named user, monitors their jobs, and notifies
receivers when the jobs end.

The body of a request is UTF-8 JSON, whatever its Content-Type says. It has at most 1 MiB, {MAX_DEPTH} levels
of nesting, {MAX_VALUES} values, and {MAX_TEXT} characters in a string. Integers are written without a
fraction. A key that occurs twice in an object is refused, and so is an unpaired surrogate. The operator's
settings (such as lists of receivers) and the caller's grants apply in addition to the rules below. Every path
also works with a trailing slash.

If the server authenticates its callers, each request needs the header `Authorization: Bearer` with an API key
or a token of the identity provider (OIDC). The caller must have the scope that the operation names. If
authentication is not configured, requests need no such header.
"""
_RETRY_AFTER_WAIT: Schema = {
    "description": "How many seconds to wait before the next attempt, if this answer came before its time.",
    "required": False,
    "schema": {"type": "integer"},
}
_BEARER = (
    "An API key, or a token of the identity provider (OIDC). If authentication is not configured, neither is"
    " needed."
)


def build_document(
    catalogue: Catalogue,
    refused_users: Collection[str],
    descriptions: Mapping[tuple[str, str], str],
    username_pattern: str | None = None,
) -> Schema:
    """Return the OpenAPI document of one server.

    Args:
        catalogue: The task names.
        refused_users: The users that no job runs as.
        descriptions: What each operation does, by method and path; the first line is its summary.
        username_pattern: TASK_USERNAME_PATTERN.
    """
    kinds = (kind for operation in OPERATIONS for kind in (operation.answer, *operation.other_answers))
    answers = dict.fromkeys(filter(_is_model, kinds))
    schemas = {**build_schemas([*answers, Error]), **build_request_schemas(catalogue, refused_users)}
    describe_catalogue_tasks(schemas, catalogue)
    schemas["Error"]["properties"]["code"]["enum"] = list_error_codes()
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        description = descriptions.get((operation.method, operation.path), "")
        described = _describe_operation(operation, description, refused_users)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    if username_pattern is not None:
        _replace_username_rule(schemas, username_pattern)
        _replace_username_rule(paths, username_pattern)
    return {
        "openapi": "3.1.0",
        "info": {"title": "slurm-proxy", "version": read_version(), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
        "security": [{"bearer": []}, {}],
    }


def _replace_username_rule(node: object, pattern: str) -> None:
    """Replace the default rule for user names by the operator's, everywhere in a schema."""
    usual, own = build_username_schema(None), build_username_schema(pattern)
    if isinstance(node, list):
        for item in node:
            _replace_username_rule(item, pattern)
    if isinstance(node, dict):
        for item in node.values():
            _replace_username_rule(item, pattern)
        if node.get("pattern") == usual["pattern"]:
            node["description"] = node["description"].replace(usual.pop(RULE), own.pop(RULE))
            node |= own


def _describe_operation(operation: Operation, description: str, refused_users: Collection[str]) -> Schema:
    names = (*re.findall(r"{(\w+)}", operation.path), *operation.parameters)
    summary, _, details = description.partition("\n")
    described: Schema = {
        "operationId": operation.id,
        "tags": [operation.path.split("/")[1]],
        "summary": summary,
    }
    scopes = " and ".join(f"`{scope}`" for scope in operation.scopes)
    if operation.other_scope is not None:
        scopes += f" or `{operation.other_scope}`"
    needs = f"Scope: {scopes}." if scopes else "Scope: any." if operation.is_for_every_caller else ""
    if more := " ".join(filter(None, [details.strip(), needs])):
        described["description"] = more
    if names:
        described["parameters"] = [_describe_parameter(name, refused_users) for name in names]
    if operation.body is not None:
        example = {"example": REQUESTS[operation.body]} if operation.body in REQUESTS else {}
        described["requestBody"] = {
            "required": not operation.is_body_optional,
            "content": {"application/json": {"schema": _body_schema(operation.body), **example}},
        }
    described["responses"] = {"200": _describe_success(operation), **build_error_answers(operation)}
    if operation.not_ready_answer is not None:
        described["responses"]["503"] = {
            "description": "This service cannot do its work at the moment.",
            "content": {"application/json": {"schema": _schema_of(operation.not_ready_answer)}},
        }
    if operation.passes_on:
        described["responses"]["default"] = {
            "description": "The answer of slurmrestd, unchanged, with its own status.",
            "content": {"application/json": {"schema": _schema_of(SlurmAnswer)}},
        }
    if operation.is_public:
        described["security"] = []
    return described


def _describe_parameter(name: str, refused_users: Collection[str]) -> Schema:
    parameter = PARAMETERS[name]
    schema = copy.deepcopy(parameter.schema)
    rules_to_descriptions(schema)
    if parameter.is_user:
        schema["not"] = {"enum": sorted(refused_users)}
    is_required = parameter.location == "path" or parameter.is_user
    return {
        "name": parameter.name or name,
        "in": parameter.location,
        "required": is_required,
        "schema": schema,
    }


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _schema_of(kind: type | str) -> Schema:
    if isinstance(kind, str):
        return {"type": "string"}
    return {"$ref": REF + kind.__name__} if _is_model(kind) else {"type": "object"}


def _body_schema(kind: type) -> Schema:
    return _schema_of(kind) if _is_model(kind) else {"type": "object", **CALLER_KEYS}


def _describe_success(operation: Operation) -> Schema:
    media = operation.answer if isinstance(operation.answer, str) else "application/json"
    schemas = [_schema_of(kind) for kind in (operation.answer, *operation.other_answers)]
    headers = (
        {"headers": {"Retry-After": _RETRY_AFTER_WAIT}}
        if {"wait", "batch_wait"} & set(operation.parameters)
        else {}
    )
    return {
        "description": "The request has succeeded.",
        **headers,
        "content": {media: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
    }
