"""Serialise the answer of a use case."""

from flask import Response, jsonify
from pydantic import BaseModel


def json_response(answer: BaseModel) -> Response:
    """Return the response whose body is this model of app/models/answers.py."""
    return jsonify(answer.model_dump(mode="json"))
