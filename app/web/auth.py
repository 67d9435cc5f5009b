"""Authenticate the caller before each request, and log the request after it."""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, g, request

from app.access.authorization import require_scope
from app.access.request_guard import Gate
from app.constants import Settings
from app.errors import Forbidden, NotAuthenticated, TooManyRequests
from app.logs import request_id
from app.models.caller import Caller, Scope
from app.web.origin import client_address, why_not_local
from app.web.request_context import caller
from app.web.request_log import log_request

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def register(app: Flask) -> None:
    """Register authentication and logging for each request of the application."""
    app.before_request(_admit)
    app.after_request(log_request)


def public(view: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a route that needs no authentication."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def require(scope: Scope) -> Callable[[], None]:
    """Return a check of that scope for a blueprint's `before_request`."""

    def check() -> None:
        require_scope(caller(), scope)

    return check


def _admit() -> None:
    g.began = time.monotonic()
    given = request.headers.get("X-Request-Id", "")
    request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or getattr(view, "is_public", False):
        return
    gate: Gate = current_app.extensions["slurm_proxy"].gate
    g.caller = _authenticate(gate, current_app.config["SLURM_PROXY_SETTINGS"])
    gate.count(g.caller)
    if g.caller.remark and not g.caller.grants:
        raise Forbidden(g.caller.remark)


def _authenticate(gate: Gate, settings: Settings) -> Caller:
    """Return the caller of the request; see Gate.caller for the exceptions.

    Raises:
        TooManyRequests: Authentication fails, and its address has used up the limit of failed attempts.
    """
    try:
        not_local = None
        if gate.is_open:
            _refuse_browsers()
            not_local = why_not_local(settings)
        return gate.caller(request.headers.get("Authorization"), not_local=not_local)
    except (NotAuthenticated, Forbidden) as error:
        attempt = gate.failed_attempts.count(client_address(settings))
        g.is_logged = attempt.is_logged
        if attempt.is_over_limit:
            words = f"too many failed attempts to authenticate from your address; the last one: {error}"
            raise TooManyRequests(words, attempt.seconds_left) from error
        raise


def _refuse_browsers() -> None:
    """Refuse requests of web pages, which could submit jobs in the name of the user who opens them.

    Raises:
        Forbidden: A web page sent the request.
    """
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise Forbidden("without authentication this server refuses requests of web pages")
