"""`/openapi.json` and `/docs`: the OpenAPI document, for programs and for people."""

import inspect
import json
import re
import shlex
from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Flask, Response, current_app, jsonify, make_response, render_template, request

from app.services import Services
from app.web.auth import allow_unauthenticated
from app.web.openapi.document import build_document
from app.web.openapi.schema_reader import SchemaReader
from app.web.origin import find_request_scheme
from app.web.request_context import get_settings

blueprint = Blueprint("api_docs", __name__, template_folder="templates")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@blueprint.get("/openapi.json")
@allow_unauthenticated
def get_openapi_document() -> Response:
    """Return the OpenAPI 3.1 document of this service."""
    prefix = quote(request.script_root)
    return jsonify({**_get_document(current_app), "servers": [{"url": prefix or "/"}]})


@blueprint.get("/docs")
@allow_unauthenticated
def get_documentation() -> Response:
    """Return the OpenAPI document as a page for people. It loads nothing from other servers."""
    api = _get_document(current_app)
    reader = SchemaReader(api["components"]["schemas"])
    operations = [
        (path, method.upper(), operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    host = request.host or "localhost"  # empty if the header `Host` is not valid
    scheme = find_request_scheme(get_settings())
    curl = partial(_format_curl, f"{scheme}://{host}{request.script_root}")
    tools = {"rows": reader.rows, "kind": reader.kind, "rule": reader.rule, "curl": curl}
    response = make_response(render_template("docs.html", api=api, operations=operations, **tools))
    response.headers["Content-Security-Policy"] = _POLICY
    return response


def _get_document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document, which is built at the first request, when all routes are known."""
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
