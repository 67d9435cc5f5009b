"""Make responses: of the answer of a use case, or of slurmrestd's own answer."""

from typing import Any

from flask import Response, g, jsonify
from pydantic import BaseModel

from app.errors import SlurmMisbehaved
from app.models.health_answers import PartStatus, Readiness
from app.slurm.reply import Reply


def make_object_response(body: dict[str, Any]) -> Response:
    """Return the response whose body is this JSON object, and keep the object for the request log."""
    g.answer = body
    return jsonify(body)


def make_json_response(answer: BaseModel, retry_after: int | None = None) -> Response:
    """Return the response whose body is this model; `retry_after`: the value of the header, in seconds."""
    response = make_object_response(answer.model_dump(mode="json"))
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def make_readiness_response(readiness: Readiness, *, has_parts: bool) -> Response:
    """Return the response, whose status is 503 if the service is not ready."""
    response = make_json_response(readiness if has_parts else Readiness(status=readiness.status))
    if readiness.status is PartStatus.NOT_READY:
        response.status_code = 503
    return response


def make_slurm_response(reply: Reply) -> Response:
    """Return the response with slurmrestd's own body and status.

    Raises:
        SlurmMisbehaved: The body is nested too deeply.
    """
    try:
        response = make_object_response(reply.body or {"status": reply.status, "text": reply.text})
    except RecursionError as error:
        raise SlurmMisbehaved("slurmrestd's answer is nested too deeply") from error
    response.status_code = 200 if reply.status in (204, 304) else reply.status
    return response
