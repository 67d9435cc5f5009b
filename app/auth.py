"""Before each request: who is calling, and may he. After it: a line in the log, and in the audit trail."""

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, current_app, g, request

from app.access.audit import AuditEntry, note
from app.access.gate import Gate
from app.errors import Forbidden
from app.lifecycle.permitting import require_scope
from app.logs import request_id
from app.models.caller import Caller, Scope
from app.models.json_body import read_object
from app.models.record import utc_now
from app.web.origin import why_not_local

logger = logging.getLogger("app.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REFUSED = (401, 403, 429)
_AUDITED = ("POST", "DELETE")
_UNKNOWN = "-"


def register(app: Flask) -> None:
    app.before_request(_admit)
    app.after_request(_keep)


def public(view: Callable[..., Any]) -> Callable[..., Any]:
    """For a route that needs no caller."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def require(scope: Scope) -> Callable[[], None]:
    """For a blueprint's `before_request`."""

    def check() -> None:
        require_scope(caller(), scope)

    return check


def caller() -> Caller:
    found: Caller = g.caller
    return found


def body() -> dict[str, Any]:
    """The JSON object that was sent; the audit trail reads from it for whom."""
    g.body = read_object(request.get_data())
    return g.body  # type: ignore[no-any-return]


def _admit() -> None:
    g.began = time.monotonic()
    given = request.headers.get("X-Request-Id", "")
    request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or getattr(view, "is_public", False):
        return
    gate: Gate = current_app.extensions["slurm_proxy"].gate
    not_local = None
    if gate.is_open:
        _refuse_browsers()
        not_local = why_not_local(current_app.config["SLURM_PROXY_SETTINGS"])
    g.caller = gate.caller(request.headers.get("Authorization"), not_local=not_local)
    gate.count(g.caller)
    if g.caller.remark and not g.caller.grants:
        raise Forbidden(g.caller.remark)


def _refuse_browsers() -> None:
    """Refuse requests of web pages, which could send jobs in the name of the user who looks at them.

    Raises:
        Forbidden: A page sent the request.
    """
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise Forbidden("without authentication this server answers no pages in browsers")


def _keep(response: Response) -> Response:
    response.headers["X-Request-Id"] = request_id.get()
    name = g.caller.name if "caller" in g else _UNKNOWN
    route = request.url_rule.rule if request.url_rule else _UNKNOWN
    logger.info(
        "%s %s %s by %s from %s in %.0f ms",
        request.method,
        route,
        response.status_code,
        name,
        request.remote_addr,
        1000 * (time.monotonic() - g.get("began", time.monotonic())),
    )
    if request.url_rule and (request.method in _AUDITED or response.status_code in _REFUSED):
        note(_entry(response, name, route))
    return response


def _entry(response: Response, name: str, route: str) -> AuditEntry:
    answer = response.get_json(silent=True) if response.is_json else None
    said: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    named = _named()
    return AuditEntry(
        at=utc_now(),
        request_id=request_id.get(),
        caller=name,
        address=request.remote_addr or _UNKNOWN,
        action=f"{request.method} {route}",
        username=_word(named.get("username", said.get("slurm_username"))),
        task_uuid=_word(named.get("uuid", named.get("task_uuid", said.get("uuid")))),
        slurm_job_id=_job_id(said),
        status=response.status_code,
        code=_word(said.get("code")),
    )


def _named() -> Mapping[str, Any]:
    """Whom and what a request is about, from where its route reads it: nothing else may speak for it."""
    if request.blueprint == "task_slurm_rest":
        return request.args
    body = g.get("body") or {}
    inner = body.get("monitor") if request.blueprint == "task_monitoring" else body
    task = inner.get("task") if isinstance(inner, dict) else None
    return {**(task if isinstance(task, dict) else {}), **(request.view_args or {})}


def _job_id(said: Mapping[str, Any]) -> int | None:
    """Return the job id in the answer, else the one in the path."""
    found = said.get("slurm_job_id", said.get("job_id"))
    if isinstance(found, int):
        return found
    text = (request.view_args or {}).get("slurm_job_id", "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def _word(value: object) -> str | None:
    """A caller's word, as long as the longest good one."""
    return value[:128] if isinstance(value, str) else None
