"""The OpenAPI 3.1 document of this service, made of the operations and of the models that check requests."""

import copy
import re
from collections.abc import Collection, Mapping
from typing import TypeGuard

from pydantic import BaseModel

from app.messages.plan import Catalogue
from app.models.answers import Error, SlurmAnswer
from app.models.json_body import MAX_DEPTH, MAX_TEXT, MAX_VALUES
from app.models.rules import RULE
from app.models.username import username_schema
from app.version import VERSION
from app.web.openapi.error_answers import error_answers, error_codes
from app.web.openapi.examples import REQUESTS
from app.web.openapi.operations import OPERATIONS, Operation
from app.web.openapi.parameters import PARAMETERS
from app.web.openapi.schemas import KEPT, REF, Schema, request_schemas, schemas_of, tell_rules

_ABOUT = f"""Runs JSON tasks on a Slurm cluster as the named user, watches them, and tells when they end.

Bodies are UTF-8 JSON of at most 1 MiB, {MAX_DEPTH} levels, {MAX_VALUES} values, and {MAX_TEXT} characters in
a string, whatever the Content-Type says. Whole numbers are written without a fraction, no key stands twice
in an object, and half surrogate pairs are refused. Beside the rules below, the operator's settings
(such as lists of receivers) and the caller's grants apply. Every path works with a trailing slash, too.

Where this server authenticates its callers, each request carries `Authorization: Bearer` with an API key or
with a token of the identity provider (OIDC), and the caller must have been granted the scope that stands
with the operation. Where authentication is not configured, none is needed.
"""
_BEARER = (
    "An API key, or a token of the identity provider (OIDC). Where authentication is not configured, none is"
    " needed."
)


def build_document(
    catalogue: Catalogue,
    refused_users: Collection[str],
    words: Mapping[tuple[str, str], str],
    username_pattern: str | None = None,
) -> Schema:
    """Return the document of one server.

    Args:
        catalogue: the names that a task may have.
        refused_users: those that no job runs as.
        words: what each (method, path) does, in a sentence or two.
        username_pattern: the operator's TASK_USERNAME_PATTERN.
    """
    answers = dict.fromkeys(filter(_is_model, (operation.answer for operation in OPERATIONS)))
    schemas = {**schemas_of([*answers, Error]), **request_schemas(catalogue, refused_users)}
    schemas["Error"]["properties"]["code"]["enum"] = error_codes()
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        about = words.get((operation.method, operation.path), "")
        described = _described(operation, about, refused_users)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    if username_pattern is not None:
        _replace_usernames(schemas, username_pattern)
        _replace_usernames(paths, username_pattern)
    return {
        "openapi": "3.1.0",
        "info": {"title": "slurm-proxy", "version": VERSION, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
        "security": [{"bearer": []}, {}],
    }


def _replace_usernames(node: object, pattern: str) -> None:
    """Replace the usual rule for user names by the operator's, in all schemas."""
    usual, own = username_schema(None), username_schema(pattern)
    if isinstance(node, list):
        for item in node:
            _replace_usernames(item, pattern)
    if isinstance(node, dict):
        for item in node.values():
            _replace_usernames(item, pattern)
        if node.get("pattern") == usual["pattern"]:
            node["description"] = node["description"].replace(usual.pop(RULE), own.pop(RULE))
            node |= own


def _described(operation: Operation, about: str, refused_users: Collection[str]) -> Schema:
    names = (*re.findall(r"{(\w+)}", operation.path), *operation.parameters)
    described: Schema = {
        "operationId": operation.id,
        "tags": [operation.path.split("/")[1]],
        "summary": about.partition("\n")[0],
    }
    scopes = " and ".join(f"`{scope}`" for scope in operation.scopes)
    needs = f"Scope: {scopes}." if scopes else ""
    if more := " ".join(filter(None, [about.partition("\n")[2].strip(), needs])):
        described["description"] = more
    if names:
        described["parameters"] = [_parameter(name, refused_users) for name in names]
    if operation.body is not None:
        example = {"example": REQUESTS[operation.body]} if operation.body in REQUESTS else {}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body(operation.body), **example}},
        }
    described["responses"] = {"200": _good(operation), **error_answers(operation)}
    if operation.passes_on:
        described["responses"]["default"] = {
            "description": "slurmrestd's own answer, under its own status.",
            "content": {"application/json": {"schema": _schema(SlurmAnswer)}},
        }
    if not operation.scopes:
        described["security"] = []
    return described


def _parameter(name: str, refused_users: Collection[str]) -> Schema:
    parameter = PARAMETERS[name]
    schema = copy.deepcopy(parameter.schema)
    tell_rules(schema)
    if parameter.is_user:
        schema["not"] = {"enum": sorted(refused_users)}
    is_required = parameter.place == "path" or parameter.is_user
    return {"name": name, "in": parameter.place, "required": is_required, "schema": schema}


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _schema(kind: type | str) -> Schema:
    if isinstance(kind, str):
        return {"type": "string"}
    return {"$ref": REF + kind.__name__} if _is_model(kind) else {"type": "object"}


def _body(kind: type) -> Schema:
    return _schema(kind) if _is_model(kind) else {"type": "object", **KEPT}


def _good(operation: Operation) -> Schema:
    media = operation.answer if isinstance(operation.answer, str) else "application/json"
    return {"description": "Done.", "content": {media: {"schema": _schema(operation.answer)}}}
