"""`/submit`: submit a task.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response, request

from app.models.rules import parse_idempotency_key
from app.web.json_response import make_json_response
from app.web.request_context import get_caller, get_services, read_body, read_dry_run

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit_task() -> Response:
    """Submit a task as a job, store its record, and monitor the job from then on.

    With `dry_run=true` the task is only checked, and the answer shows what slurmrestd would get.
    """
    key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
    use_case = get_services().submitter.dry_run if read_dry_run() else get_services().submitter.submit
    return make_json_response(use_case(get_caller(), read_body(), key))
