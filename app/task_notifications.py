"""`/notifications`: dead letters and other notifications. The scope monitor may look, admin may also retry.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response

from app.models.caller import Scope
from app.web.auth import make_scope_check
from app.web.json_response import make_json_response
from app.web.request_context import get_services, read_query

blueprint = Blueprint("task_notifications", __name__, url_prefix="/notifications")
blueprint.before_request(make_scope_check(Scope.MONITOR, to_change=Scope.ADMIN))


@blueprint.get("")
def list_notifications() -> Response:
    """Return the notifications in one status, by default the dead ones, the oldest first."""
    return make_json_response(
        get_services().dead_letters.find(
            **{"status": "dead", "limit": "100", **read_query("status", "method", "limit")}
        )
    )


@blueprint.post("/<notification_id>/retry")
def retry_notification(notification_id: str) -> Response:
    """Retry at once a message that is dead or waits for its next attempt."""
    return make_json_response(get_services().dead_letters.retry(notification_id))


@blueprint.post("/retry")
def retry_notifications() -> Response:
    """Retry at once all messages that are dead or wait for their next attempt, or those of one method."""
    return make_json_response(get_services().dead_letters.retry_all(**read_query("method")))
