"""Requests that are accepted, some with a warning."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.errors import Forbidden
from app.job_state import JobState
from app.models.caller import Caller, Grant, Scope
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_task
from tests.support.web import CHANNELS, QUEUE, post, prepared_app


def test_argv_is_accepted_only_in_place_of_cmd_and_params(client: FlaskClient) -> None:
    words = "must not be given together with argv, which replaces cmd and params"
    both = make_task(argv=["echo", "a"])
    assert post(client, "/submit", {"task": both}).json["details"] == [
        f"task.cmd: {words}",
        f"task.params: {words}",
    ]
    one = make_task(argv=["echo", "a"], cmd=None, params=[])
    assert post(client, "/submit", {"task": one}).json["details"] == [f"task.params: {words}"]
    neither = make_task(cmd=None, params=None)
    needed = "is required for generic, unless argv is given"
    assert post(client, "/submit", {"task": neither}).json["details"] == [
        f"task.cmd: {needed}",
        f"task.params: {needed}",
    ]
    empty = {**neither, "argv": []}
    assert post(client, "/submit", {"task": empty}).json["details"] == ["task.argv: must not be empty"]
    good = {**neither, "argv": ["echo", "a"]}
    assert post(client, "/submit", {"task": good}).status_code == 200


def test_a_byte_order_mark_before_the_json_is_skipped(client: FlaskClient) -> None:
    task = make_task()
    body = b"\xef\xbb\xbf" + json.dumps({"task": task}).encode()
    assert post(client, "/submit", body).status_code == 200
    found = client.get(f"/monitor/task_uuid/{task['uuid']}").json or {}
    assert found["monitor"]["task"] == task


def test_a_body_with_the_identity_encoding_is_read(client: FlaskClient) -> None:
    answer = client.post("/submit", json={"task": make_task()}, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"notifications": {}}, "notification"),
        ({"Notification": {}}, "notification"),
        ({"enviroment": "A=1"}, "slurm.environment"),
        ({"job-name": "x", "slurm": {}}, "slurm.job_name"),
        ({"job-name": "x"}, None),  # it is given where it belongs
        ({"notifications": {}, "notification": {}}, None),
        ({"environment": "A=1", "comment": "mine", "notes": 1, "project": "x", "": 1}, None),
    ],
)
def test_a_key_that_looks_misspelt_is_stored_with_a_warning(
    client: FlaskClient, fields: dict[str, Any], meant: str | None
) -> None:
    task = make_task(**fields)
    answer = post(client, "/submit", {"task": task}).json
    word = next(iter(fields))
    warning = f"task.{word}: is not a known key, and is only stored; did you mean {meant}?"
    assert answer.get("warnings", []) == ([warning] if meant else [])
    monitor = client.get(f"/monitor/task_uuid/{task['uuid']}").json["monitor"]  # type: ignore[index]
    assert monitor["task"] == task
    assert monitor.get("warnings", []) == answer.get("warnings", [])


def test_misspelt_key_of_a_registered_task_is_stored_with_a_warning(
    client: FlaskClient, slurm: FakeSlurm
) -> None:
    slurm.put(5, JobState.RUNNING)
    task = {"username": "alice", "uuid": "w", "notifications": {}, "enviroment": ""}
    answer = post(client, "/monitor", {"monitor": {"task": task, "slurm_job_id": 5}}).json
    words = "is not a known key, and is only stored; did you mean notification?"
    assert answer["warnings"] == [f"task.notifications: {words}"]


@pytest.mark.timed
def test_many_keys_of_the_callers_own_are_soon_compared(client: FlaskClient) -> None:
    began = time.monotonic()
    own: dict[str, Any] = {f"notifications{number}{'x' * 50}": 1 for number in range(9000)}
    assert post(client, "/submit", {"task": make_task(**own)}).status_code == 200
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("method", "params", "pattern"), CHANNELS)
def test_a_method_that_is_not_configured_is_a_warning_and_grants_count_all_the_same(
    app: Flask, client: FlaskClient, method: str, params: dict[str, Any], pattern: str
) -> None:
    task = make_task(notification={"methods": [method], "params": {method: params}})
    answer = post(client, "/submit", {"task": task})
    assert answer.json["warnings"] == [f"this server is not configured for {method}"]
    validator = app.extensions["slurm_proxy"].validator
    for allowed, is_refused in ((pattern, False), (f"{method}:another", True)):
        grant = Grant(scopes=frozenset({Scope.SUBMIT}), users=("alice",), recipients=(allowed,))
        with pytest.raises(Forbidden) if is_refused else nullcontext():
            validator.validate_submission(Caller("pipeline", (grant,)), {"task": task})


def test_an_allowed_service_user_may_run(tmp_path: Path, slurm: FakeSlurm) -> None:
    path = tmp_path / "s.sqlite3"
    with prepared_app(path, slurm, TASK_ALLOWED_SERVICE_USERS="root, daemon") as app:
        client = app.test_client()
        assert post(client, "/submit", {"task": make_task("root")}).status_code == 200
        assert post(client, "/submit", {"task": make_task("slurm")}).status_code == 400


@pytest.mark.parametrize("environment", ["PATH=/bin", ["A=1", "B=x=y"], {"A": "1"}, [], {}])
@pytest.mark.parametrize(
    "extra", [{}, {"exclusive": "user", "begin": "2026-01-01T00:00:00+01:00", "gpus": "a100:2"}]
)
def test_good_options_are_taken(client: FlaskClient, environment: Any, extra: dict[str, Any]) -> None:
    task = make_task(slurm={"environment": environment, **extra})
    assert post(client, "/submit", {"task": task}).status_code == 200


@pytest.mark.parametrize(("method", "key"), [("rabbithq", "rabbitmq"), ("rabbitmq", "rabbithq")])
def test_a_method_may_have_another_name_in_params(client: FlaskClient, method: str, key: str) -> None:
    task = make_task(notification={"methods": [method], "params": {key: QUEUE}})
    assert post(client, "/submit", {"task": task}).status_code == 200


def test_the_least_task_is_enough(client: FlaskClient) -> None:
    assert post(client, "/submit", {"task": make_task(slurm={}, params=[])}).status_code == 200
    least = make_task(name="echo_hello_world", slurm={}, cmd=None, params=None)
    assert post(client, "/submit", {"task": least}).status_code == 200
