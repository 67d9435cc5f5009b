"""`/notifications`: messages that did not arrive, for the operator; never open to ordinary callers."""

from flask import Blueprint, Response, request

from app.errors import InvalidRequest
from app.models.caller import Scope
from app.web.auth import make_scope_check
from app.web.json_response import json_response
from app.web.request_context import get_services

blueprint = Blueprint("task_notifications", __name__, url_prefix="/notifications")
blueprint.before_request(make_scope_check(Scope.ADMIN))


@blueprint.get("")
def list_notifications() -> Response:
    """Return the messages that were given up, or those in another status, the oldest first."""
    return json_response(
        get_services().dead_letters.find(
            **{"status": "dead", "limit": "100", **_read_query("status", "method", "limit")}
        )
    )


@blueprint.post("/<notification_id>/retry")
def retry_notification(notification_id: str) -> Response:
    """Retry a message at once that is dead or waits for its next attempt."""
    return json_response(get_services().dead_letters.retry(notification_id))


@blueprint.post("/retry")
def retry_notifications() -> Response:
    """Retry all messages at once, or those of one method, that are dead or wait for their next attempt."""
    return json_response(get_services().dead_letters.retry_all(**_read_query("method")))


def _read_query(*known: str) -> dict[str, str]:
    """Return the parameters of the query. An unknown one is refused, because it may be a misspelt limit."""
    faults = [f"{name}: is not known here" for name in request.args if name not in known]
    if faults:
        raise InvalidRequest(faults)
    return request.args.to_dict()
