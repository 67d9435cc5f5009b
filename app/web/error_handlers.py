"""Turn each exception into an HTTP answer, in one JSON form. No other module does so."""

import logging
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.errors import CancellationBusy, SlurmAmbiguous, SlurmProxyError
from app.web.json_response import make_object_response
from app.web.request_context import get_services

logger = logging.getLogger(__name__)


def register_error_handlers(app: Flask) -> None:
    """Have each exception of a request answered in JSON."""
    app.register_error_handler(SlurmProxyError, _answer_own_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected_error)


def _answer_own_error(error: SlurmProxyError) -> Response:
    """Answer with the status and the code of the error; log the beginning of an outage."""
    # The use case logs a SlurmAmbiguous; a CancellationBusy is no outage.
    if error.status >= 500 and not isinstance(error, SlurmAmbiguous | CancellationBusy):
        get_services().outages.record_failure(error.failing_part or error.code, f"{error.code}: {error}")
    response = _answer(error.status, error.for_callers, error.code, error.extra())
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _answer_http_error(error: HTTPException) -> Response:
    """Answer a request without a route, with a wrong method, or with a body that is too large."""
    status = error.code or 500
    response = _answer(status, _describe(error), error.name.lower().replace(" ", "_"))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _describe(error: HTTPException) -> str:
    if isinstance(error, NotFound):
        return "there is no such route; GET /docs shows those that there are"
    if isinstance(error, MethodNotAllowed):
        methods = sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
        return f"this route accepts only {' and '.join(methods)}"
    return (error.description or error.name).rstrip(".")


def _answer_unexpected_error(error: Exception) -> Response:
    logger.exception("a request failed")
    return _answer(500, "the server failed; its log says why", "internal_error")


def _answer(status: int, sentence: str, code: str, extra: Any = None) -> Response:
    response = make_object_response({"error": sentence, "code": code, **(extra or {})})
    response.status_code = status
    return response
