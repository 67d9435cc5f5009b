"""`/submit`: submit a task."""

from flask import Blueprint, Response, jsonify, request

from app.models.rules import idempotency_key
from app.web.request_context import body, caller, services

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit() -> Response:
    """Submit a task as a job, store its record, and monitor the job from then on."""
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    return jsonify(services().submitter.submit(caller(), body(), key))
