"""`/submit`: submit a task."""

from flask import Blueprint, Response, current_app, jsonify, request

from app.auth import body, caller
from app.models.rules import idempotency_key
from app.services import Services

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit() -> Response:
    """Submit a task as a job, store its record, and monitor the job from then on."""
    services: Services = current_app.extensions["slurm_proxy"]
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    return jsonify(services.intake.submit(caller(), body(), key))
