"""The routes as callers rely on them, on a cluster in memory."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task
from tests.support.web import check_error, post


def test_ping_answers_pong(client: FlaskClient) -> None:
    for path in ("/ping", "/ping/"):
        response = client.get(path)
        assert (response.status_code, response.text) == (200, "pong")


@pytest.mark.parametrize("path", ["/submit", "/submit/"])
@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", None]
)
def test_submit_takes_json_whatever_the_content_type(
    client: FlaskClient, path: str, content_type: str | None
) -> None:
    task = make_task()
    response = post(client, path, {"task": task}, content_type=content_type)
    assert response.status_code == 200
    assert response.json == {"uuid": task["uuid"], "slurm_job_id": 1001, "slurm_job_state": "PENDING"}
    assert response.content_type == "application/json"
    assert response.text.endswith("}\n")


@pytest.mark.parametrize("word", ["true", "1"])
def test_a_dry_run_answers_what_would_be_submitted(client: FlaskClient, slurm: FakeSlurm, word: str) -> None:
    notification = {**make_email(), "methods": ["email", "slack"], "events": ["begin", "end"]}
    task = make_task(notification=notification, enviroment="A=1")
    answer = post(client, f"/submit/?dry_run={word}", {"task": task})
    assert answer.status_code == 200
    assert list(answer.json) == ["valid", "script", "slurm", "notifications", "warnings"]
    assert answer.json["valid"] is True
    assert answer.json["script"] == answer.json["slurm"]["script"]
    assert task["params"][1] in answer.json["script"]
    email, slack = answer.json["notifications"]
    assert email == {
        "method": "email",
        "to": "someone@example.com",
        "events": ["begin", "end"],
        "error": None,
    }
    assert (slack["method"], slack["error"]) == ("slack", "this server is not configured for slack")
    submitted = post(client, "/submit", {"task": task})
    assert submitted.json["warnings"] == answer.json["warnings"]
    assert len(submitted.json["warnings"]) == 2
    assert len(slurm.submitted) == 1


@pytest.mark.parametrize("word", ["false", "0"])
def test_dry_run_false_submits(client: FlaskClient, slurm: FakeSlurm, word: str) -> None:
    assert "slurm_job_id" in post(client, f"/submit?dry_run={word}", {"task": make_task()}).json
    assert "slurm_job_id" in post(client, "/submit?other=1", {"task": make_task()}).json
    assert len(slurm.submitted) == 2


@pytest.mark.parametrize("query", ["dry_run=", "dry_run=yes", "dry_run=True", "dry_run=true&dry_run=false"])
def test_another_value_of_dry_run_is_refused_by_name(
    client: FlaskClient, slurm: FakeSlurm, query: str
) -> None:
    answer = post(client, f"/submit?{query}", {"task": make_task()})
    check_error(answer, 400, "invalid_request")
    assert answer.json["details"] == ["dry_run: must be true or false, and occur only once"]
    assert slurm.submitted == []


@pytest.mark.parametrize("name", ["dry-run", "dryrun", "DRY_RUN", "dry_runs"])
def test_a_misspelt_dry_run_submits_nothing(client: FlaskClient, slurm: FakeSlurm, name: str) -> None:
    answer = post(client, f"/submit?{name}=true", {"task": make_task()})
    check_error(answer, 400, "invalid_request")
    assert answer.json["details"] == [f"{name}: is not known here; did you mean dry_run?"]
    assert slurm.submitted == []


def test_a_task_can_be_fetched_by_both_ids_tweaked_and_sent_again(client: FlaskClient) -> None:
    task = make_task(metadata={"z": 1, "a": [1.0, "ü"]}, notification=make_email())
    job_id = post(client, "/submit", {"task": task}).json["slurm_job_id"]
    answers = [
        client.get(f"/monitor/{what}{slash}").json
        for what in (f"slurm_job_id/{job_id}", f"task_uuid/{task['uuid']}")
        for slash in ("", "/")
    ]
    for answer in answers:
        assert answer is not None
        assert answer["monitor"]["task"] == task
        assert list(answer["monitor"]["task"]) == list(task)
        assert {"username", "job_id", "job_state"} <= answer["slurm"].keys()
    again = {**answers[0]["monitor"]["task"], "uuid": "another:one_1.2-3"}  # type: ignore[index]
    assert post(client, "/submit", {"task": again}).status_code == 200


@pytest.mark.parametrize("slash", ["", "/"])
def test_records_of_a_state_are_listed_as_the_other_gets_show_them(client: FlaskClient, slash: str) -> None:
    tasks = [make_task() for _ in range(3)]
    for task in tasks:
        assert post(client, "/submit", {"task": task}).status_code == 200
    listed = client.get(f"/monitor/slurm_job_state/PENDING{slash}")
    assert listed.status_code == 200
    single = [client.get(f"/monitor/task_uuid/{task['uuid']}").json for task in reversed(tasks)]
    page = listed.json or {}
    assert page["monitor"] == [(answer or {})["monitor"] for answer in single]
    assert page["tasks"] == (client.get("/monitor?state=PENDING").json or {})["tasks"]
    empty: dict[str, Any] = {"tasks": [], "next": None, "monitor": []}
    assert client.get(f"/monitor/slurm_job_state/RUNNING{slash}").json == empty


@pytest.mark.parametrize(
    ("word", "near"),
    [("RUNING", "RUNNING"), ("pending", "PENDING"), ("x" * 5000, ""), ("%F0%9F%98%80", ""), ("done", "")],
)
def test_word_that_is_no_state_is_refused_with_a_suggestion_only_if_one_is_near(
    client: FlaskClient, word: str, near: str
) -> None:
    answer = client.get(f"/monitor/slurm_job_state/{word}")
    check_error(answer, 400, "invalid_request")
    meant = f"did you mean {near}?" if near else "it must be a word such as PENDING or COMPLETED"
    assert (answer.json or {})["error"] == f"slurm_job_state: is not a job state of Slurm; {meant}"


@pytest.mark.parametrize("slash", ["", "/"])
def test_deleting_a_job_cancels_it_and_keeps_its_record(
    client: FlaskClient, slurm: FakeSlurm, slash: str
) -> None:
    task = make_task()
    job_id = (post(client, "/submit", {"task": task}).json or {})["slurm_job_id"]
    answer = client.delete(f"/monitor/slurm_job_id/{job_id}{slash}")
    assert answer.status_code == 200
    cancelled = {
        "uuid": task["uuid"],
        "slurm_job_id": job_id,
        "slurm_username": "alice",
        "slurm_job_state": "CANCELLED",
        "changed": True,
    }
    assert answer.json == cancelled
    assert slurm.jobs[job_id].job_state is JobState.CANCELLED
    assert client.get(f"/monitor/task_uuid/{task['uuid']}").status_code == 200
    again = client.delete(f"/monitor/slurm_job_id/{job_id}{slash}")
    assert (again.status_code, again.json) == (200, cancelled | {"changed": False})
    check_error(client.delete(f"/monitor/slurm_job_id/999999{slash}"), 404, "unknown_task")
    check_error(client.delete(f"/monitor/slurm_job_id/abc{slash}"), 400, "invalid_request")


def test_a_filter_in_the_query_cancels_nothing(client: FlaskClient, slurm: FakeSlurm) -> None:
    job_id = (post(client, "/submit", {"task": make_task()}).json or {})["slurm_job_id"]
    body = {"filter": {"state": "open"}}
    for query in ("username=bob", "dry-run=true", "dry_run=yes"):
        check_error(post(client, f"/monitor/cancel?{query}", body), 400, "invalid_request")
    answer = post(client, "/monitor/cancel/?dry_run=1", body).json or {}
    assert (answer["dry_run"], answer["tasks"][0]["outcome"]) == (True, "would_be_cancelled")
    assert slurm.jobs[job_id].job_state is JobState.PENDING


def test_timestamps_are_utc_with_an_offset(client: FlaskClient) -> None:
    task = make_task()
    post(client, "/submit", {"task": task})
    monitor = client.get(f"/monitor/task_uuid/{task['uuid']}").json["monitor"]  # type: ignore[index]
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", monitor[name])


def test_registration_answers_the_contents_of_monitor(client: FlaskClient, slurm: FakeSlurm) -> None:
    slurm.put(5, JobState.RUNNING)
    body = {"monitor": {"task": {"username": "alice", "uuid": "w"}, "slurm_job_id": 5}}
    for path, status in (("/monitor", 200), ("/monitor/", 400)):
        response = post(client, path, body)
        assert response.status_code == status
    answer = client.get("/monitor/slurm_job_id/5").json
    assert answer is not None
    assert answer["monitor"]["slurm_job_state"] == "RUNNING"
    assert answer["monitor"]["slurm_username"] == "alice"


def test_a_fetched_record_can_be_posted_to_monitor_with_a_new_uuid(
    client: FlaskClient, slurm: FakeSlurm
) -> None:
    slurm.put(5, JobState.RUNNING)
    post(client, "/monitor", {"monitor": {"task": {"username": "alice", "uuid": "w"}, "slurm_job_id": 5}})
    monitor = client.get("/monitor/slurm_job_id/5").json["monitor"]  # type: ignore[index]
    monitor["task"]["uuid"] = "x"
    assert post(client, "/monitor", {"monitor": monitor}).status_code == 200


def test_a_duplicate_names_the_job_that_has_the_uuid(client: FlaskClient) -> None:
    task = make_task()
    first = post(client, "/submit", {"task": task}).json
    response = post(client, "/submit", {"task": task})
    assert response.status_code == 400
    assert response.json["code"] == "duplicate_uuid"
    assert response.json["slurm_job_id"] == first["slurm_job_id"]
    assert task["uuid"] in response.json["error"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (SlurmRefused("Slurm refused the job: Invalid partition name specified"), 400, "slurm_refused"),
        (SlurmUnavailable("slurmrestd cannot be reached"), 503, "slurm_unavailable"),
        (SlurmMisbehaved("the token is not accepted"), 502, "slurm_error"),
        (SlurmAmbiguous("no answer"), 504, "submission_unknown"),
    ],
)
def test_the_answer_to_a_failure_of_slurm_tells_whether_to_retry(
    client: FlaskClient, slurm: FakeSlurm, failure: Any, status: int, code: str
) -> None:
    slurm.failure = failure
    response = post(client, "/submit", {"task": make_task()})
    assert (response.status_code, response.json["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status >= 500)
