"""`/openapi.json` and `/docs`: what this service takes and answers, for programs and for people."""

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Flask, Response, current_app, jsonify, make_response, render_template, request

from app.services import Services
from app.web.auth import allow_unauthenticated
from app.web.openapi.document import build_document
from app.web.origin import request_scheme
from app.web.request_context import get_settings

blueprint = Blueprint("api_docs", __name__, template_folder="templates")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LIMITS = {"minimum": "At least", "exclusiveMinimum": "More than", "maximum": "At most"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a body, as a line of the table."""

    depth: int
    name: str
    kind: str
    is_required: bool
    words: str


@blueprint.get("/openapi.json")
@allow_unauthenticated
def get_openapi_document() -> Response:
    """Return the OpenAPI 3.1 document of this service."""
    prefix = quote(request.script_root)
    return jsonify({**_build_once(current_app), "servers": [{"url": prefix or "/"}]})


@blueprint.get("/docs")
@allow_unauthenticated
def get_documentation() -> Response:
    """Return the OpenAPI document as a page for people, which loads nothing from other servers."""
    api = _build_once(current_app)
    reader = _Reader(api["components"]["schemas"])
    operations = [
        (path, method.upper(), operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    host = request.host or "localhost"  # empty if the header `Host` is not valid
    scheme = request_scheme(get_settings())
    curl = partial(_format_curl, f"{scheme}://{host}{request.script_root}")
    tools = {"rows": reader.rows, "kind": reader.kind, "rule": reader.rule, "curl": curl}
    response = make_response(render_template("docs.html", api=api, operations=operations, **tools))
    response.headers["Content-Security-Policy"] = _POLICY
    return response


def _build_once(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document, which is built once, when all routes are known."""
    if "openapi" not in app.extensions:
        services: Services = app.extensions["slurm_proxy"]
        validator = services.validator
        app.extensions["openapi"] = build_document(
            validator.catalogue,
            validator.refused_users,
            _docstrings_by_route(app),
            validator.username_pattern,
        )
    found: dict[str, Any] = app.extensions["openapi"]
    return found


def _docstrings_by_route(app: Flask) -> dict[tuple[str, str], str]:
    """Return the docstring of each route's function, by method and path."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)): inspect.getdoc(
            app.view_functions[rule.endpoint]
        )
        or ""
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }


def _format_curl(server: str, path: str, example: object) -> str:
    return f"curl -X POST -d {shlex.quote(json.dumps(example, indent=1))} {shlex.quote(server + path)}"


class _Reader:
    """Describes JSON Schemas in words."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas = schemas

    def rows(self, schema: dict[str, Any], depth: int = 0) -> Iterator[Row]:
        """Yield the fields of an object, those of the objects in it, and so on."""
        schema = self._resolved(schema)
        for name, field in schema.get("properties", {}).items():
            yield Row(depth, name, self.kind(field), name in schema.get("required", ()), self.rule(field))
            for choice in self._choices(field):
                for inner in self._choices(self._resolved(choice).get("items", choice)):
                    yield from self.rows(inner, depth + 1)

    def kind(self, schema: dict[str, Any]) -> str:
        return " or ".join(dict.fromkeys(self._kind(choice) for choice in self._choices(schema)))

    def rule(self, schema: dict[str, Any]) -> str:
        """Return description, choices, default and an example; limits only where no description has them.

        A list has the rule of its items, too.
        """
        whole = self._resolved(schema)
        said = [schema.get("description", ""), whole.get("description", "")]
        if "enum" in whole:
            said.append("One of " + ", ".join(f"`{word}`" for word in whole["enum"]) + ".")
        if "anyOf" in schema and not any("Must" in words for words in said):
            said += [self.rule(choice) for choice in schema["anyOf"]]
        if not any(said):
            said = [f"{words} {whole[key]}." for key, words in _LIMITS.items() if key in whole]
        for choice in self._choices(schema):
            if choice.get("type") == "array" and (rule := self.rule(choice["items"])):
                said.append(f"Each item: {rule}")
        if schema.get("default") not in (None, [], {}) and "$ref" not in schema:
            said.append(f"Default: `{json.dumps(schema['default'])}`.")
        said += [f"For example `{json.dumps(example)}`." for example in schema.get("examples", ())]
        return " ".join(filter(None, dict.fromkeys(said)))

    def _kind(self, schema: dict[str, Any]) -> str:
        whole = self._resolved(schema)
        if whole.get("type") == "array":
            return f"list of {self.kind(whole['items'])}"
        kind = whole.get("type") or ("string" if "enum" in whole else "any JSON")
        return kind if isinstance(kind, str) else " or ".join(kind)

    def _choices(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the alternatives of a value."""
        if "anyOf" not in schema:
            return [schema]
        return [found for choice in schema["anyOf"] for found in self._choices(choice)]

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
        return found
