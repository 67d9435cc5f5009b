"""`/readyz`, `/metrics` and `/cluster`: how the service and the cluster fare.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

from flask import Blueprint, Response

from app.web.auth import allow_unauthenticated, may_monitor, require_monitor
from app.web.json_response import make_json_response, make_readiness_response
from app.web.metrics_page import CONTENT_TYPE, write_metrics_page
from app.web.request_context import get_services, read_query

blueprint = Blueprint("task_health", __name__)


@blueprint.get("/readyz")
@allow_unauthenticated
def check_readiness() -> Response:
    """Return whether this service can do its work; the status is 503 if it cannot.

    No key is needed for that. Callers with the scope monitor, and local requests, see all parts, too.
    """
    has_parts = may_monitor()
    return make_readiness_response(get_services().operator_view.readiness.check(), has_parts=has_parts)


@blueprint.get("/metrics")
@allow_unauthenticated
def get_metrics() -> Response:
    """Return the metrics of the service and of all its processes on this host, as Prometheus reads them.

    Local requests need no key.
    """
    require_monitor()
    collected = get_services().operator_view.metrics_collection.collect()
    return Response(write_metrics_page(collected), content_type=CONTENT_TYPE)


@blueprint.get("/cluster")
def describe_cluster() -> Response:
    """Return the cluster's partitions with their limits and free CPUs, and whether Slurm answers.

    Slurm is asked once a minute. While it does not answer, the partitions are those that it reported last.
    """
    read_query()
    return make_json_response(get_services().operator_view.cluster_description.describe())
