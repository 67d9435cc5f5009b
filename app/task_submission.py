"""`/submit`: submit a task.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response, request

from app.models.rules import parse_idempotency_key
from app.web.json_response import make_json_response
from app.web.request_context import get_caller, get_services, read_body

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit_task() -> Response:
    """Submit a task as a job, store its record, and monitor the job from then on."""
    key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
    return make_json_response(get_services().submitter.submit(get_caller(), read_body(), key))
