"""Give routes the caller and the body of the current request, and the services of its application."""

from typing import Any

from flask import current_app, g, request

from app.errors import UnsupportedEncoding
from app.models.caller import Caller
from app.models.json_body import read_object
from app.services import Services


def services() -> Services:
    """Return the services of the application that handles the current request."""
    found: Services = current_app.extensions["slurm_proxy"]
    return found


def caller() -> Caller:
    """Return the caller of the current request."""
    found: Caller = g.caller
    return found


def body() -> dict[str, Any]:
    """Return the JSON object in the body, and keep it for the log, which reads user and uuid from it.

    Raises:
        InvalidRequest: The body is not a JSON object, or has values that cannot be stored.
        UnsupportedEncoding: The body has a content encoding, such as gzip.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding(
            f"Content-Encoding: {encoding[:60]} is not supported; send the body without it"
        )
    g.body = read_object(request.get_data())
    return g.body  # type: ignore[no-any-return]
