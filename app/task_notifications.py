"""`/notifications`: messages that did not arrive, for the operator; never open to ordinary callers."""

from flask import Blueprint, Response, current_app, jsonify, request

from app.auth import require_operator
from app.lifecycle.outbox import Outbox

blueprint = Blueprint("task_notifications", __name__, url_prefix="/notifications")
blueprint.before_request(require_operator)


def _outbox() -> Outbox:
    outbox: Outbox = current_app.extensions["slurm_proxy"].outbox
    return outbox


@blueprint.get("")
def find() -> Response:
    """`?status=dead&method=email&limit=100`: the oldest first."""
    args = request.args
    return jsonify(_outbox().find(args.get("status", "dead"), args.get("method"), args.get("limit", "100")))


@blueprint.post("/<notification_id>/retry")
def retry(notification_id: str) -> Response:
    """Has a dead one sent again."""
    return jsonify(_outbox().retry(notification_id))


@blueprint.post("/retry")
def retry_all() -> Response:
    """Has all dead ones sent again, or those of `?method=`."""
    return jsonify(_outbox().retry_all(request.args.get("method")))
