"""`/submit`: takes a task in."""

from flask import Blueprint, Response, current_app, jsonify, request

from app.auth import body, caller
from app.models.rules import idempotency_key
from app.services import Services

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit() -> Response:
    """One request submits the task, records it and starts to watch it."""
    services: Services = current_app.extensions["slurm_proxy"]
    key = idempotency_key(request.headers.get("Idempotency-Key"))
    return jsonify(services.intake.submit(caller(), body(), key))
