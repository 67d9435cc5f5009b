"""`/monitor`: register jobs that were submitted elsewhere, list tasks, and look up records.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from functools import partial

from flask import Blueprint, Response

from app.models.record_state import states_of
from app.web.json_response import make_json_response
from app.web.request_context import get_caller, get_services, read_body, read_query_lists
from app.web.waiting import answer_about_batch, wait_for_task

blueprint = Blueprint("task_monitoring", __name__, url_prefix="/monitor")


@blueprint.post("")
def register_job() -> Response:
    """Register a job that was submitted elsewhere, and monitor it from then on."""
    return make_json_response(get_services().registration.register(get_caller(), read_body()))


@blueprint.get("")
def list_tasks() -> Response:
    """List tasks page by page, or look up several tasks by uuid.

    Only tasks that the caller may read are listed; with the scope `monitor`, those of all users. A filter
    with several values is met by any of them, and a task must meet all filters.
    """
    query = read_query_lists()
    return answer_about_batch(query, partial(get_services().listing.list_tasks, get_caller(), query))


@blueprint.get("/slurm_job_id/<slurm_job_id>")
def get_task_by_job_id(slurm_job_id: str) -> Response:
    """Return the task with this job id, and the last known facts of its job.

    With `wait`, answer when the task has ended. Of several tasks with this job id, the newest one counts.
    """
    lookup = get_services().lookup
    retry_after = wait_for_task(lambda: states_of(lookup.read_by_job_id(get_caller(), slurm_job_id)))
    return make_json_response(lookup.find_by_job_id(get_caller(), slurm_job_id), retry_after)


@blueprint.get("/slurm_job_state/<slurm_job_state>")
def list_tasks_by_state(slurm_job_state: str) -> Response:
    """Return a page of the tasks in one state, with their whole records."""
    listing = get_services().listing
    return make_json_response(listing.list_by_state(get_caller(), slurm_job_state, read_query_lists()))


@blueprint.get("/task_uuid/<task_uuid>")
def get_task_by_uuid(task_uuid: str) -> Response:
    """Return the task with this uuid, and the last known facts of its job.

    With `wait`, answer when the task has ended.
    """
    lookup = get_services().lookup
    retry_after = wait_for_task(lambda: states_of(lookup.read_by_uuid(get_caller(), task_uuid)))
    return make_json_response(lookup.find_by_uuid(get_caller(), task_uuid), retry_after)
