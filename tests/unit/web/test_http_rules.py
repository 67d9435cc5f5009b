"""The rules of HTTP: methods, paths, sizes, faults of our own."""

import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.constants import MAX_BODY_BYTES
from app.job_state import JobState
from app.models.record import NotificationStatus, utc_now
from app.store.notification_queue import Outcome
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task
from tests.support.web import check_error, post


@pytest.mark.parametrize(
    "path", ["/", "/nope", "//submit", "/monitor/x", "/monitor/task_uuid", "/slurm/jobs", "/submit/x"]
)
def test_unknown_route_is_a_404_in_json(client: FlaskClient, path: str) -> None:
    check_error(client.get(path), 404, "not_found")
    assert "GET /docs" in client.get(path).json["error"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "path", "accepted"),
    [
        ("GET", "/submit", "POST"),
        ("PUT", "/submit/", "POST"),
        ("DELETE", "/monitor", "GET and POST"),
        ("POST", "/ping", "GET"),
        ("POST", "/monitor/task_uuid/x", "GET"),
        ("GET", "/monitor/task_uuid/x/resubmit", "POST"),
        ("GET", "/slurm/job/submit", "POST"),
        ("GET", "/slurm/job/submit/", "POST"),
        ("DELETE", "/slurm/job/submit", "POST"),
        ("POST", "/slurm/job/1", "GET"),
    ],
)
def test_wrong_method_is_a_405_in_json(client: FlaskClient, method: str, path: str, accepted: str) -> None:
    response = client.open(path, method=method)
    check_error(response, 405, "method_not_allowed")
    assert set(accepted.split(" and ")) <= set(response.headers["Allow"].split(", "))
    assert response.json["error"] == f"this route accepts only {accepted}"  # type: ignore[index]


@pytest.mark.parametrize("job_id", ["0", *(2**32 - number for number in range(4)), "submitted", "1_2"])
@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/monitor/slurm_job_id/", "slurm_job_id"),
        ("DELETE", "/monitor/slurm_job_id/", "slurm_job_id"),
        ("GET", "/slurm/job/", "job_id"),
    ],
)
def test_a_path_with_an_id_that_no_job_can_have_is_refused(
    client: FlaskClient, slurm: FakeSlurm, method: str, path: str, field: str, job_id: object
) -> None:
    response = client.open(f"{path}{job_id}", method=method)
    check_error(response, 400, "invalid_request")
    words = f"{field}: must be a Slurm job id, an integer from 1 to 4294967292"
    assert response.json["details"] == [words]  # type: ignore[index]
    assert slurm.calls == []


def test_the_largest_job_id_is_looked_up(client: FlaskClient, slurm: FakeSlurm) -> None:
    slurm.put(2**32 - 4, JobState.RUNNING)
    task = {"username": "alice", "uuid": "w"}
    registered = post(client, "/monitor", {"monitor": {"task": task, "slurm_job_id": 2**32 - 4}})
    assert registered.status_code == 200
    assert client.get(f"/monitor/slurm_job_id/{2**32 - 4}").status_code == 200
    assert client.get(f"/slurm/job/{2**32 - 4}").status_code == 200


def test_body_that_is_too_large_is_a_413_in_json(client: FlaskClient, slurm: FakeSlurm) -> None:
    check_error(post(client, "/submit", b" " * (MAX_BODY_BYTES + 1)), 413, "request_entity_too_large")
    assert slurm.calls == []


def test_a_fault_of_our_own_is_json_without_a_traceback(client: FlaskClient, slurm: FakeSlurm) -> None:
    slurm.down = ZeroDivisionError("secret words")  # type: ignore[assignment]
    task = {"username": "alice", "uuid": "w"}
    response = post(client, "/monitor", {"monitor": {"task": task, "slurm_job_id": 5}})
    check_error(response, 500, "internal_error")
    assert "secret words" not in response.text


def test_the_outbox_is_shown_and_dead_messages_are_sent_again(app: Flask, client: FlaskClient) -> None:
    services = app.extensions["slurm_proxy"]
    task = make_task(notification=make_email())
    job_id = post(client, "/submit", {"task": task}).json["slurm_job_id"]
    services.slurm.put(job_id, JobState.FAILED, exit_code=3)
    services.monitor.run_cycle(utc_now())
    claim = services.store.claim("email", "me", utc_now(), utc_now())
    services.store.settle(claim, Outcome(NotificationStatus.DEAD, utc_now(), error="550 no such user"))
    for path in ("/notifications", "/notifications/", "/notifications?status=dead&method=email&limit=1"):
        shown: Any = client.get(path).json
        (item,) = shown["notifications"]
    assert item["task_uuid"] == task["uuid"]
    assert (item["status"], item["last_error"]) == ("dead", "550 no such user")
    assert item["subject"] == "[FAILED] the test job has ended"
    assert client.get("/notifications?status=sent").json == {"notifications": [], "more": False}
    retried: Any = client.post(f"/notifications/{item['id']}/retry/")
    assert (retried.status_code, retried.json["status"]) == (200, "retrying")
    assert services.store.claim("email", "me", utc_now(), utc_now()) is not None
    check_error(client.post(f"/notifications/{item['id']}/retry"), 409, "not_dead")
    check_error(client.post("/notifications/nothing/retry"), 404, "unknown_notification")
    assert client.post("/notifications/retry?method=email").json == {"retried": 0}
    for path in ("/notifications?status=lost", "/notifications?limit=0", "/notifications?method=pigeon"):
        check_error(client.get(path), 400, "invalid_request")
    check_error(client.post("/notifications/retry?method=pigeon"), 400, "invalid_request")


@pytest.mark.parametrize(
    "path",
    [
        "/slurm/diag",
        "/slurm/ping",
        "/slurm/jobs/0",
        "/slurm/job/1",
        "/slurm/job/submit",
        "/notifications",
        "/notifications/x/retry",
        "/notifications/retry",
    ],
)
@pytest.mark.parametrize(
    "caller",
    [
        {"environ_base": {"REMOTE_ADDR": "192.0.2.1"}},
        {"environ_base": {"REMOTE_ADDR": "2001:db8::1"}},
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Forwarded": "for=127.0.0.1"}},
    ],
)
def test_the_private_routes_are_closed_to_others(
    client: FlaskClient, path: str, caller: dict[str, Any]
) -> None:
    method = "POST" if path.endswith(("submit", "retry")) else "GET"
    check_error(client.open(path, method=method, **caller), 403, "forbidden")


@pytest.mark.parametrize("path", ["/monitor/slurm_job_id/", "/notifications?limit=", "/slurm/job/"])
def test_a_number_with_many_digits_is_a_bad_one(client: FlaskClient, path: str) -> None:
    for digits in ("9" * 40, "000001" + "9" * 40, "000000000001" + "9" * 40, "000000000001" + "9" * 5000):
        check_error(client.get(path + digits), 400, "invalid_request")


@pytest.mark.parametrize(
    "query", ["username=%E2%82%AC", "username=a%0Ab", "username=A", "username=", "user=bob"]
)
def test_an_operator_submits_as_a_user_that_there_can_be(
    client: FlaskClient, slurm: FakeSlurm, query: str
) -> None:
    response = client.post(f"/slurm/job/submit?{query}", data="{}")
    check_error(response, 400, "invalid_request")
    assert slurm.calls == []


@pytest.mark.timed
def test_many_faults_of_a_long_name_make_a_short_answer(client: FlaskClient) -> None:
    """Each fault names its field: a body must not be able to blow its answer up."""
    for body in (
        {"k" * 100_000: [99999999999999999999] * 8000},
        {"task": {**make_task(), "slurm": {f"{number}{'x' * 90}": 1 for number in range(9000)}}},
        {"task": make_task(params=[1] * 9000)},
    ):
        began = time.monotonic()
        response = post(client, "/submit", body)
        check_error(response, 400, "invalid_request")
        assert response.json["details"][100:] == ["and more"]
        assert len(response.data) < 100_000
        assert time.monotonic() - began < 5
