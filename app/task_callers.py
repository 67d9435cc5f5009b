"""`/whoami` and `/catalogue`: what the caller may do, and which task names there are.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response

from app.web.json_response import make_json_response
from app.web.request_context import get_caller, get_services, read_query

blueprint = Blueprint("task_callers", __name__)


@blueprint.get("/whoami")
def describe_caller() -> Response:
    """Return the caller's name and permissions, and what is left of the caller's limits."""
    read_query()
    caller, services = get_caller(), get_services()
    left = services.request_guard.count_requests_left(caller)
    return make_json_response(services.caller_description.describe(caller, left))


@blueprint.get("/catalogue")
def list_catalogue() -> Response:
    """Return the task names of this server, each with its description, command and defaults."""
    read_query()
    return make_json_response(get_services().catalogue_listing.list_all(get_caller()))
