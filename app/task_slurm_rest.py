"""`/slurm`: slurmrestd's own answers, for callers with the scope admin.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from app.errors import InvalidRequest
from app.models.caller import Scope
from app.models.rules import parse_job_id
from app.web.auth import make_scope_check
from app.web.json_response import make_slurm_response
from app.web.request_context import get_services, read_body

blueprint = Blueprint("task_slurm_rest", __name__, url_prefix="/slurm")
blueprint.before_request(make_scope_check(Scope.ADMIN))


class _JobIdConverter(BaseConverter):
    """A part of a path except `submit`, so that `GET /slurm/job/submit` is a 405."""

    regex = r"(?!submit\Z)[^/]+"


@blueprint.record
def _register_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["id"] = _JobIdConverter


@blueprint.get("/ping")
def ping_slurm() -> Response:
    """Return slurmrestd's answer to `ping`: whether slurmctld answers."""
    return make_slurm_response(get_services().slurm.send_raw("GET", "ping"))


@blueprint.get("/diag")
def get_slurm_diagnostics() -> Response:
    """Return the statistics of slurmctld."""
    return make_slurm_response(get_services().slurm.send_raw("GET", "diag"))


@blueprint.get("/jobs/<update_time>")
def list_slurm_jobs(update_time: str) -> Response:
    """Return all jobs, if any job has changed since `update_time` (seconds since the epoch; 0 for always)."""
    return make_slurm_response(get_services().slurm.send_raw_list(_parse_seconds("update_time", update_time)))


@blueprint.get("/job/<id:job_id>")
def get_slurm_job(job_id: str) -> Response:
    """Return one job as slurmctld describes it."""
    return make_slurm_response(get_services().slurm.send_raw("GET", f"job/{parse_job_id('job_id', job_id)}"))


@blueprint.post("/job/submit")
def submit_slurm_job() -> Response:
    """Submit a body in slurmrestd's own form, as the user in the query. Nothing is recorded."""
    return make_slurm_response(get_services().submitter.submit_raw(request.args.to_dict(), read_body()))


def _parse_seconds(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequest([f"{field}: must be a whole number, not negative"])
    return int(text)
