"""`/monitor/<task>/cancel`, `hold`, `release` and `requeue`, and `/monitor/cancel`: change the jobs of tasks.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response

from app.models.job_action import JobAction
from app.web.json_response import make_json_response
from app.web.request_context import (
    get_caller,
    get_services,
    keep_cancelled_tasks,
    read_body,
    read_only_dry_run,
    refuse_parameters,
)

blueprint = Blueprint("task_control", __name__, url_prefix="/monitor")


@blueprint.delete("/slurm_job_id/<slurm_job_id>")
def cancel_task_by_job_id(slurm_job_id: str) -> Response:
    """Cancel a job, as `POST /monitor/slurm_job_id/<id>/cancel` does. The record stays."""
    # As in the older server, parameters are ignored.
    answer = get_services().control.control_by_job_id(get_caller(), JobAction.CANCEL, slurm_job_id)
    return make_json_response(answer)


@blueprint.post("/cancel")
def cancel_tasks() -> Response:
    """Cancel all open tasks that meet a filter, at most 1,000, each as its user.

    A task that cannot be cancelled does not stop the others. With `dry_run` the tasks are only listed.
    """
    use_case = get_services().bulk_cancellation.cancel_many
    answer = use_case(get_caller(), read_body(), is_dry_run=read_only_dry_run())
    return make_json_response(keep_cancelled_tasks(answer))


@blueprint.post("/task_uuid/<task_uuid>/cancel")
def cancel_task_by_uuid(task_uuid: str) -> Response:
    """Cancel the job of a task as its user. Notifications of the end are sent as usual."""
    return _control_by_uuid(JobAction.CANCEL, task_uuid)


@blueprint.post("/slurm_job_id/<slurm_job_id>/cancel")
def cancel_job(slurm_job_id: str) -> Response:
    """Cancel a job as its user. Notifications of the end are sent as usual."""
    return _control_by_job_id(JobAction.CANCEL, slurm_job_id)


@blueprint.post("/task_uuid/<task_uuid>/hold")
def hold_task_by_uuid(task_uuid: str) -> Response:
    """Hold the job of a task as its user, so that the job does not start until it is released."""
    return _control_by_uuid(JobAction.HOLD, task_uuid)


@blueprint.post("/slurm_job_id/<slurm_job_id>/hold")
def hold_job(slurm_job_id: str) -> Response:
    """Hold a job as its user, so that the job does not start until it is released."""
    return _control_by_job_id(JobAction.HOLD, slurm_job_id)


@blueprint.post("/task_uuid/<task_uuid>/release")
def release_task_by_uuid(task_uuid: str) -> Response:
    """Release the held job of a task as its user, so that the job can start."""
    return _control_by_uuid(JobAction.RELEASE, task_uuid)


@blueprint.post("/slurm_job_id/<slurm_job_id>/release")
def release_job(slurm_job_id: str) -> Response:
    """Release a held job as its user, so that the job can start."""
    return _control_by_job_id(JobAction.RELEASE, slurm_job_id)


@blueprint.post("/task_uuid/<task_uuid>/requeue")
def requeue_task_by_uuid(task_uuid: str) -> Response:
    """Requeue the job of a task as its user: stop the job, and queue it again under the same job id."""
    return _control_by_uuid(JobAction.REQUEUE, task_uuid)


@blueprint.post("/slurm_job_id/<slurm_job_id>/requeue")
def requeue_job(slurm_job_id: str) -> Response:
    """Requeue a job as its user: stop the job, and queue it again under the same job id."""
    return _control_by_job_id(JobAction.REQUEUE, slurm_job_id)


def _control_by_uuid(action: JobAction, uuid: str) -> Response:
    refuse_parameters()
    return make_json_response(get_services().control.control_by_uuid(get_caller(), action, uuid))


def _control_by_job_id(action: JobAction, job_id: str) -> Response:
    refuse_parameters()
    return make_json_response(get_services().control.control_by_job_id(get_caller(), action, job_id))
