"""`/readyz`, `/metrics` and `/cluster`: the health of the service, and the partitions of the cluster.

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

    The status needs no key. Callers with the scope monitor and local requests also see each part.
    """
    has_parts = may_monitor()
    return make_readiness_response(get_services().operator_view.readiness.check(), has_parts=has_parts)


@blueprint.get("/metrics")
@allow_unauthenticated
def get_metrics() -> Response:
    """Return the metrics of the service and of its processes on this host, in the format of Prometheus.

    Local requests need no key.
    """
    require_monitor()
    collected = get_services().operator_view.metrics_collection.collect()
    return Response(write_metrics_page(collected), content_type=CONTENT_TYPE)


@blueprint.get("/cluster")
def describe_cluster() -> Response:
    """Return the cluster's partitions with their limits and free CPUs, and whether Slurm answers.

    Slurm is asked once a minute. While Slurm does not answer, the last known partitions are returned.
    """
    read_query()
    return make_json_response(get_services().operator_view.cluster_description.describe())
