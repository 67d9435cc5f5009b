"""The parameters of operations: in the path, in the query and in headers."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from app.job_state import JobState
from app.models.record import NotificationStatus
from app.models.record_state import MAX_WAIT_SECONDS, WaitCondition
from app.models.rules import IDEMPOTENCY_KEY, JobId, Uuid
from app.models.task_filter import MAX_LIMIT, TaskQuery
from app.models.username import Username
from app.senders import SENDERS
from app.web.openapi.schemas import Schema

_JOB_ID: Schema = TypeAdapter(JobId).json_schema()
_SECONDS: Schema = {
    "type": "integer",
    "minimum": 0,
    "maximum": 10**11 - 1,
    "description": "Seconds since the epoch; with 0, the jobs are always returned.",
}
_DRY_RUN: Schema = {
    "type": "boolean",
    "default": False,
    "description": "Check the task and show what would be submitted, without submitting. 1 and 0 work, too.",
}
_DRY_RUN_OF_CANCELLATION: Schema = {
    **_DRY_RUN,
    "description": "List the tasks without cancelling any, as `dry_run` in the body. 1 and 0 work, too.",
}
_WAIT: Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": MAX_WAIT_SECONDS,
    "description": "How many seconds to wait at most for the condition `until`.",
}
_UNTIL: Schema = {
    "type": "string",
    "enum": list(WaitCondition),
    # No "default": generated clients would send it without `wait`, too, which is refused.
    "description": "The condition for `wait`: that tasks have ended, have begun (or ended), or have changed"
    f" their state. By default `{WaitCondition.END}`.",
}
LIST_PREFIX = "list_"  # of the keys in PARAMETERS for the parameters of lists
_LIST: Schema = TaskQuery.model_json_schema()["properties"]
_USER: Schema = {**TypeAdapter(Username).json_schema(), "title": "The user that the job runs as."}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter in the path, in the query or in a header."""

    location: str  # path, query or header
    schema: Schema
    is_user: bool = False  # the parameter names the user to act as, and is required
    name: str | None = None  # where another one has the same


def _describe_list_parameters() -> dict[str, Parameter]:
    """Return the parameters of lists. A filter that may have several values is given once for each value.

    They have no default, which generated clients would send even with uuids.
    """
    found = {}
    for name, schema in _LIST.items():
        several = [form for form in schema.pop("anyOf", ()) if form.get("type") == "array"]
        for form in several:
            schema |= {"type": "array", "items": form["items"], "maxItems": form["maxItems"]}
        rest = {key: value for key, value in schema.items() if key not in ("title", "default")}
        found[LIST_PREFIX + name] = Parameter("query", rest, name=name)
    return found


_OF_LISTS = _describe_list_parameters()
_STATE_LIMIT = {
    **_OF_LISTS[LIST_PREFIX + "limit"].schema,
    "description": f"The most tasks in the answer; {MAX_LIMIT} by default.",
}
_BATCH_WAIT = {**_WAIT, "description": f"Only with `uuid`: {_WAIT['description']}"}
_BATCH_UNTIL = {
    **(_LIST_UNTIL := _OF_LISTS[LIST_PREFIX + "until"].schema),
    "description": f"{_LIST_UNTIL['description']} With `wait`, what it waits for: `change`, the default, for"
    " a change of any of the tasks, or `end`, for the end of all.",
}
LIST_PARAMETERS = tuple(_OF_LISTS)
BATCH_PARAMETERS = (
    *(key for key in LIST_PARAMETERS if key != LIST_PREFIX + "until"),
    "batch_until",
    "batch_wait",
)
STATE_PARAMETERS = (
    *(key for key in LIST_PARAMETERS if key not in (LIST_PREFIX + "state", LIST_PREFIX + "limit")),
    "state_limit",
)
PARAMETERS = {
    **_OF_LISTS,
    "state_limit": Parameter("query", _STATE_LIMIT, name="limit"),
    "slurm_job_id": Parameter("path", _JOB_ID),
    "slurm_job_state": Parameter("path", {"type": "string", "enum": list(JobState)}),
    "task_uuid": Parameter("path", TypeAdapter(Uuid).json_schema()),
    "notification_id": Parameter("path", {"type": "string", "minLength": 1}),
    "update_time": Parameter("path", _SECONDS),
    "job_id": Parameter("path", _JOB_ID),
    "status": Parameter("query", {"type": "string", "enum": list(NotificationStatus), "default": "dead"}),
    "method": Parameter("query", {"type": "string", "enum": list(SENDERS)}),
    "limit": Parameter("query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
    "dry_run": Parameter("query", _DRY_RUN),
    "batch_wait": Parameter("query", _BATCH_WAIT, name="wait"),
    "batch_until": Parameter("query", _BATCH_UNTIL, name="until"),
    "dry_run_of_cancellation": Parameter("query", _DRY_RUN_OF_CANCELLATION, name="dry_run"),
    "wait": Parameter("query", _WAIT),
    "wait_until": Parameter("query", _UNTIL, name="until"),
    "username": Parameter("query", _USER, is_user=True),
    "Idempotency-Key": Parameter("header", IDEMPOTENCY_KEY),
}
