"""`/submit`: takes a task in."""

from flask import Blueprint, Response, current_app, jsonify, request

from app.models.json_body import read_object
from app.models.rules import idempotency_key
from app.services import Services

blueprint = Blueprint("task_submission", __name__)


@blueprint.post("/submit")
def submit() -> Response:
    """One request submits the task, records it and starts to watch it."""
    services: Services = current_app.extensions["slurm_proxy"]
    body = read_object(request.get_data())
    return jsonify(services.intake.submit(body, idempotency_key(request.headers.get("Idempotency-Key"))))
