"""Write each request to the log, and each that changes something or is refused to the audit trail, too."""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, g, request

from app.access.audit import AuditEntry, write_audit_entry
from app.logs import request_id
from app.models.record import utc_now
from app.web.origin import find_client_address
from app.web.request_context import get_services, get_settings
from app.web.request_metrics import count_request

logger = logging.getLogger("app.requests")

_REFUSED = (401, 403, 429)
_AUDITED = ("POST", "DELETE")
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class _Source:
    """The caller of a request, the address of the client, and the route."""

    caller: str
    address: str
    route: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """The user, the task and the job of a request, as far as known."""

    username: str | None = None
    task_uuid: str | None = None
    slurm_job_id: int | None = None
    code: str | None = None
    resubmitted_from: str | None = None


def log_request(response: Response) -> Response:
    """Log the request of this response, unless it is one of too many failed attempts to authenticate."""
    response.headers["X-Request-Id"] = request_id.get()
    seconds = time.monotonic() - g.get("began", time.monotonic())
    count_request(get_services().operator_view.metrics, response, seconds)
    if g.get("is_logged", True):
        source = _Source(
            caller=g.caller.name if "caller" in g else _UNKNOWN,
            address=find_client_address(get_settings()),
            route=request.url_rule.rule if request.url_rule else _UNKNOWN,
        )
        subject = _find_subject()
        _write_log_line(response, source, subject, seconds)
        if request.url_rule and (request.method in _AUDITED or response.status_code in _REFUSED):
            _write_audit_entries(response, source, subject)
    return response


def _write_log_line(response: Response, source: _Source, subject: _Subject, seconds: float) -> None:
    fields = {
        "method": request.method,
        "route": source.route,
        "status": response.status_code,
        "caller": source.caller,
        "address": source.address,
        "user": subject.username,
        "uuid": subject.task_uuid,
        "slurm_job_id": subject.slurm_job_id,
        "duration": round(seconds, 4),
    }
    waited = ""
    if "waited" in g:
        waited = f", of which it waited {g.waited:.1f} s"
        fields["waited"] = round(g.waited, 4)
    values = (request.method, source.route, response.status_code, source.caller, source.address)
    logger.info("%s %s %s by %s from %s in %.0f ms%s", *values, 1000 * seconds, waited, extra=fields)


def _write_audit_entries(response: Response, source: _Source, subject: _Subject) -> None:
    """Write an entry about the request, and one for each task of a bulk cancellation."""
    entry = AuditEntry(
        at=utc_now(),
        request_id=request_id.get(),
        caller=source.caller,
        address=source.address,
        action=f"{request.method} {source.route}" + ("?dry_run=true" if g.get("is_dry_run") else ""),
        username=subject.username,
        task_uuid=subject.task_uuid,
        slurm_job_id=subject.slurm_job_id,
        status=response.status_code,
        code=subject.code,
        resubmitted_from=subject.resubmitted_from,
    )
    write_audit_entry(entry)
    for task in g.get("cancelled_tasks", ()):
        named = {"username": task.slurm_username, "task_uuid": task.uuid, "outcome": task.outcome}
        write_audit_entry(entry.model_copy(update={**named, "slurm_job_id": task.slurm_job_id}))


def _find_subject() -> _Subject:
    answer: Mapping[str, Any] = g.get("answer", {})  # there is none for a page or a text
    record = answer["monitor"] if isinstance(answer.get("monitor"), dict) else answer
    task = record["task"] if isinstance(record.get("task"), dict) else {}
    named = _read_request_fields()
    if (source := answer.get("resubmitted_from")) is not None:  # the path names the earlier task
        named = task
    return _Subject(
        username=_shorten(named.get("username", record.get("slurm_username"))),
        task_uuid=_shorten(named.get("uuid", named.get("task_uuid", answer.get("uuid", task.get("uuid"))))),
        slurm_job_id=_job_id_in(record),
        code=_shorten(answer.get("code")),
        resubmitted_from=_shorten(source),
    )


def _read_request_fields() -> Mapping[str, Any]:
    """Return the fields of the request that name user and task."""
    if request.blueprint == "task_slurm_rest":
        return request.args
    body = g.get("body") or {}
    inner = body.get("monitor") if request.blueprint == "task_monitoring" else body
    task = inner.get("task") if isinstance(inner, dict) else None
    return {**(task if isinstance(task, dict) else {}), **(request.view_args or {})}


def _job_id_in(record: Mapping[str, Any]) -> int | None:
    """Return the job id in an answer, else the one in the path."""
    found = record.get("slurm_job_id", record.get("job_id"))
    if isinstance(found, int):
        return found
    text = (request.view_args or {}).get("slurm_job_id", "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def _shorten(value: object) -> str | None:
    """Return the text, cut to the length of the longest valid name; None if the value is no text."""
    return value[:128] if isinstance(value, str) else None
