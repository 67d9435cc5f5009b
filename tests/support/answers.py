"""Read the answers of use cases as callers do."""

from typing import Any

from pydantic import BaseModel


def body_of(answer: BaseModel) -> dict[str, Any]:
    """Return the JSON object that a caller gets."""
    return answer.model_dump(mode="json")
