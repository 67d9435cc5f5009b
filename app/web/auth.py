"""Authenticate the caller before each request, and log the request afterwards."""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, g, request

from app.access.authorization import require_scope
from app.access.request_guard import RequestGuard
from app.errors import (
    Forbidden,
    IdentityProviderUnavailable,
    NotAuthenticated,
    StoreUnavailable,
    TooManyRequests,
)
from app.logs import request_id
from app.models.caller import Caller, Scope
from app.store.breaker import allow_refusal
from app.web.origin import explain_not_local, find_client_address
from app.web.request_context import get_caller, get_services, get_settings
from app.web.request_log import log_request

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def register_authentication(app: Flask) -> None:
    """Have each request of the application authenticated and logged."""
    app.before_request(authenticate_request)
    app.after_request(log_request)


def allow_unauthenticated(view: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a route that needs no authentication."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def make_scope_check(scope: Scope, *, to_change: Scope | None = None) -> Callable[[], None]:
    """Return a function for a blueprint's `before_request` that requires a scope of the caller.

    Args:
        scope: The scope for each request.
        to_change: Another scope, for the requests that change something.
    """

    def check_scope() -> None:
        is_reading = request.method in ("GET", "HEAD")
        require_scope(get_caller(), scope if is_reading or to_change is None else to_change)

    return check_scope


def may_monitor() -> bool:
    """Return whether the current request, on a route without authentication, may see the parts.

    Raises:
        NotAuthenticated: The key or the token is not valid.
        TooManyRequests: The key or the token is not valid, and the address has used up its failed attempts.
    """
    if "Authorization" not in request.headers:
        return _is_local()
    try:
        require_monitor()
    except (Forbidden, StoreUnavailable, IdentityProviderUnavailable):
        return False
    return True


def require_monitor() -> None:
    """Require a local request, or a key or token with the scope monitor.

    While the store is unavailable, a key that was valid a short while ago is accepted.

    Raises:
        NotAuthenticated: The request is not local, and has no valid key or token.
        IdentityProviderUnavailable: A token cannot be checked now.
        StoreUnavailable: The store does not answer, and the key was not used a short while ago.
        Forbidden: The caller does not have the scope.
        TooManyRequests: Authentication fails, and the address has used up the limit of failed attempts.
    """
    authorization = request.headers.get("Authorization")
    if authorization is None and _is_local():
        return
    operators = get_services().operator_view.recent_operators
    try:
        g.caller = _authenticate(get_services().request_guard)
    except (StoreUnavailable, IdentityProviderUnavailable):
        if operators.knows(authorization or ""):
            return
        raise
    except NotAuthenticated:  # such as a key that was revoked
        operators.forget(authorization or "")
        raise
    require_scope(g.caller, Scope.MONITOR)
    if authorization is not None:
        operators.remember(authorization)


def _is_local() -> bool:
    return not _is_of_browser() and explain_not_local(get_settings()) is None


def authenticate_request() -> None:
    """Authenticate the caller of the current request, and count the request.

    Raises:
        NotAuthenticated: The request has no valid key or token.
        IdentityProviderUnavailable: A token cannot be checked now.
        Forbidden: The caller has no permission at all.
        TooManyRequests: The caller has used up a rate limit.
    """
    g.began = time.monotonic()
    given = request.headers.get("X-Request-Id", "")
    request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
    allow_refusal()
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or getattr(view, "is_public", False):
        return
    guard = get_services().request_guard
    g.caller = _authenticate(guard)
    guard.count_request(g.caller)
    if g.caller.remark and not g.caller.grants:
        raise Forbidden(g.caller.remark)


def _authenticate(guard: RequestGuard) -> Caller:
    """Return the caller of the current request; count a failed attempt.

    Raises:
        NotAuthenticated: The request has no valid key or token.
        IdentityProviderUnavailable: A token cannot be checked now.
        Forbidden: The server has no authentication, and does not serve this client.
        TooManyRequests: Authentication fails, and the address has used up the limit of failed attempts.
    """
    try:
        not_local = None
        if guard.authentication_disabled:
            _refuse_browsers()
            not_local = explain_not_local(get_settings())
        return guard.authenticate(request.headers.get("Authorization"), not_local=not_local)
    except (NotAuthenticated, Forbidden) as error:
        attempt = guard.failed_attempts.count(find_client_address(get_settings()))
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
    if _is_of_browser():
        raise Forbidden("without authentication this server refuses requests of web pages")


def _is_of_browser() -> bool:
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none"
