"""`/monitor/.../resubmit`: submit the task of a record again, with changes.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response, request

from app.lifecycle.resubmit import ResubmissionCall
from app.models.rules import parse_idempotency_key
from app.web.json_response import make_json_response
from app.web.request_context import get_caller, get_services, read_only_dry_run, read_optional_body

blueprint = Blueprint("task_resubmission", __name__, url_prefix="/monitor")


@blueprint.post("/task_uuid/<task_uuid>/resubmit")
def resubmit_task_by_uuid(task_uuid: str) -> Response:
    """Submit a task again, with changes, as a new task with a uuid of its own.

    With `dry_run=true` the new task is only checked, and the answer shows it.
    """
    use_case = get_services().resubmission.resubmit_by_uuid
    return make_json_response(use_case(get_caller(), task_uuid, _read_call()))


@blueprint.post("/slurm_job_id/<slurm_job_id>/resubmit")
def resubmit_task_by_job_id(slurm_job_id: str) -> Response:
    """Submit the task of the newest record of a job id again, with changes, as a new task.

    With `dry_run=true` the new task is only checked, and the answer shows it.
    """
    use_case = get_services().resubmission.resubmit_by_job_id
    return make_json_response(use_case(get_caller(), slurm_job_id, _read_call()))


def _read_call() -> ResubmissionCall:
    key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
    return ResubmissionCall(is_dry_run=read_only_dry_run(), body=read_optional_body(), key=key)
