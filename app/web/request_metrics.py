"""Count the requests of callers: by route and status, submissions by outcome, and those over a limit."""

from flask import Response, g, request

from app.metrics import (
    HTTP_REQUEST_SECONDS,
    HTTP_REQUESTS,
    RATE_LIMITED_REQUESTS,
    SUBMISSION_SECONDS,
    SUBMISSIONS,
    Metrics,
)

_NO_ROUTE = "none"
_SUBMISSION_ROUTES = ("/submit", "/resubmit")  # the ends of their paths


def count_request(metrics: Metrics, response: Response, seconds: float) -> None:
    """Count the current request, which was answered with this response after so many seconds."""
    route = request.url_rule.rule if request.url_rule else _NO_ROUTE
    method = request.method if request.url_rule else _NO_ROUTE  # a client may make up methods
    metrics.count(HTTP_REQUESTS, method, route, str(response.status_code))
    metrics.observe(HTTP_REQUEST_SECONDS, seconds, method, route)
    if response.status_code == 429:
        metrics.count(RATE_LIMITED_REQUESTS, _find_code())
    is_submission = request.method == "POST" and route.endswith(_SUBMISSION_ROUTES)
    if is_submission and request.blueprint != "task_slurm_rest" and not g.get("is_dry_run"):
        metrics.count(SUBMISSIONS, "submitted" if response.status_code == 200 else _find_code())
        metrics.observe(SUBMISSION_SECONDS, seconds)


def _find_code() -> str:
    """Return the code of the error that the request is answered with."""
    code = g.get("answer", {}).get("code")
    return code if isinstance(code, str) else "unknown"
