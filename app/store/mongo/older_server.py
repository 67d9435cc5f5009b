"""Read the unchanged documents of the older server, which this service replaces."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from app.job_state import JobState
from app.models.record import RecordKind
from app.models.rules import MAX_JOB_ID
from app.store.mongo.types import Document

# Each document of the older server meets one of these conditions, as in `is_of_older_server`.
OF_OLDER_SERVER: tuple[Document, ...] = (
    {"taken_over_at": {"$exists": True}},
    {"notifications": {"$exists": False}},
)
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_STATES = dict(JobState.__members__)


def is_of_older_server(document: Document) -> bool:
    """Return whether the older server wrote a document, because a list of notifications is missing."""
    return "taken_over_at" in document or "notifications" not in document


def parse_stored_state(value: object) -> JobState:
    """Return the state that a stored value stands for; UNKNOWN for a value that is no state of Slurm."""
    return _STATES.get(value, JobState.UNKNOWN) if isinstance(value, str) else JobState.UNKNOWN


def match_state(state: JobState) -> object:
    """Return a condition for the stored values that are read as `state`."""
    if state is not JobState.UNKNOWN:
        return state.value
    return {"$nin": [known.value for known in JobState if known is not JobState.UNKNOWN]}


def list_stored_forms(uuids: Iterable[str]) -> list[object]:
    """Return all stored values that are read as one of these uuids; the older server also stored numbers."""
    texts = list(uuids)
    numbers = [int(text) for text in texts if _NUMBER.fullmatch(text)]
    return [*texts, *numbers]


def parse_stored_job_id(value: object) -> int | None:
    """Return the job id in a number or in a string of digits; None for anything else."""
    is_text = isinstance(value, str) and value.isascii() and value.isdigit()
    if not is_text and (isinstance(value, bool) or not isinstance(value, int | float)):
        return None
    if isinstance(value, float) and not value.is_integer():  # NaN and infinity, too
        return None
    number = int(value)  # type: ignore[call-overload]
    return number if 0 < number <= MAX_JOB_ID else None


def parse_stored_task(document: Document) -> dict[str, Any]:
    """Return the task of a document, or an empty one if the task is no object."""
    task = _replace_non_json(document.get("task"))
    return task if isinstance(task, dict) else {}


def translate_fields(document: Document) -> Document:
    """Return those fields of a document of the older server that this service stores in another form.

    A record that was never updated counts as updated when it was created.
    """
    created_at = _parse_time(document.get("created_at")) or datetime.fromtimestamp(0, UTC)
    task = parse_stored_task(document)
    usernames = (document.get("slurm_username"), task.get("username"))
    return {
        "kind": RecordKind.REGISTERED,  # its jobs were submitted another way
        "task": task,
        "slurm_username": next((name for name in usernames if name and isinstance(name, str)), ""),
        "slurm_job_id": parse_stored_job_id(document.get("slurm_job_id")),
        "slurm_job_state": parse_stored_state(document.get("slurm_job_state")),
        "created_at": created_at,
        "updated_at": _parse_time(document.get("updated_at")) or created_at,
    }


def _replace_non_json(value: object) -> object:
    """Return `value` with text in place of everything that JSON does not have, such as dates and NaN."""
    if isinstance(value, dict):
        return {key: _replace_non_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_non_json(item) for item in value]
    is_finite = not isinstance(value, float) or math.isfinite(value)
    is_json = value is None or (isinstance(value, str | int | float) and is_finite)
    return value if is_json else str(value)


def _parse_time(value: object) -> datetime | None:
    """Return the time in a date or an ISO 8601 text, in UTC unless it has a time zone; None for others."""
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if not isinstance(found, datetime):
            return None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (OverflowError, ValueError):
        return None
