"""Requests to slurmrestd are counted by kind and outcome."""

from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.metrics import SLURM_REQUEST_SECONDS, SLURM_REQUESTS, Metrics
from app.slurm.connection import Connection
from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from tests.support.real.http_services import Answer, HttpService, Request, json_answer
from tests.support.real.processes import free_port


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/slurm/v0.0.45/jobs/state", "GET jobs/state"),
        ("GET", "/slurm/v0.0.38/job/4711", "GET job"),
        ("DELETE", "/slurm/v0.0.38/job/4711_3", "DELETE job"),
        ("POST", "/slurm/v0.0.42/job/4711/requeue", "POST job/requeue"),
        ("POST", "/slurm/v0.0.42/job/submit", "POST job/submit"),
        ("GET", "/slurmdb/v0.0.42/jobs", "GET slurmdb/jobs"),
        ("GET", "/openapi/v3", "GET /openapi/v3"),
    ],
)
def test_a_kind_has_neither_version_nor_job_id(method: str, path: str, kind: str) -> None:
    assert SlurmRequest(method, path).kind == kind


class Slurmrestd(HttpService):
    """Answers everything but a job."""

    def take(self, request: Request) -> Answer:
        return json_answer({}, 404) if "/job/" in request.path else json_answer({})


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {(kind, outcome): count for (kind, outcome), count in metrics.snapshot()[SLURM_REQUESTS.name]}


def connect(url: str, metrics: Metrics) -> Connection:
    mint = TokenMint(b"a key for the tests alone, of 32+ bytes", 60)
    return Connection(url, mint, connect_timeout=1, read_timeout=1, connections=1, metrics=metrics)


def test_requests_are_counted_by_outcome() -> None:
    metrics = Metrics()
    with Slurmrestd() as server:
        connection = connect(server.url, metrics)
        for path in ("/slurm/v0.0.45/diag", "/slurm/v0.0.45/job/1", "/slurm/v0.0.45/job/2"):
            connection.send(SlurmRequest("GET", path, user="slurm"))
        connection.close()
    assert counted(metrics) == {("GET diag", "ok"): 1, ("GET job", "error"): 2}
    durations: Any = metrics.snapshot()[SLURM_REQUEST_SECONDS.name]
    assert [labels for labels, _ in durations] == [["GET diag"], ["GET job"]]


def test_a_request_without_an_answer_is_counted() -> None:
    metrics = Metrics()
    connection = connect(f"http://127.0.0.1:{free_port()}", metrics)
    with pytest.raises(SlurmUnavailable):
        connection.send(SlurmRequest("GET", "/slurm/v0.0.45/diag", user="slurm"))
    assert counted(metrics) == {("GET diag", "unanswered"): 1}
