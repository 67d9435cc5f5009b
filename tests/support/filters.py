"""Filters of tasks for tests."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.models.task_filter import CONTEXT_KEY, TaskFilter


def make_filter(values: Mapping[str, Any], now: datetime) -> TaskFilter:
    """Return the filter in a JSON object, as the body of a request has it; ages refer to `now`."""
    return TaskFilter.model_validate(values, context={CONTEXT_KEY: now})
