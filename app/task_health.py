"""`/readyz`: whether this service can do its work.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response

from app.web.auth import allow_unauthenticated, may_monitor
from app.web.json_response import make_readiness_response
from app.web.request_context import get_services

blueprint = Blueprint("task_health", __name__)


@blueprint.get("/readyz")
@allow_unauthenticated
def check_readiness() -> Response:
    """Return whether this service can do its work; the status is 503 if it cannot.

    Nobody needs a key for that. Callers with the scope monitor, and local requests, see all parts, too.
    """
    has_parts = may_monitor()
    return make_readiness_response(get_services().readiness.check(), has_parts=has_parts)
