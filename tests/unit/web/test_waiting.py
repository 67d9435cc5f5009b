"""GET /monitor/... with `wait`: the parameters, the answers, the log, and the slots of a server."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import Client

from app.constants import MAX_BODY_BYTES
from app.job_state import JobState
from app.lifecycle.state_subscriptions import StateSubscriptions
from app.models.record import utc_now
from app.services import Services
from app.web.request_slots import RequestSlots
from tests.conftest import until
from tests.support.access import ALICE, Site
from tests.support.fakes import FakeSlurm
from tests.support.stores import make_record
from tests.support.tasks import make_task
from tests.support.web import check_error, post


@pytest.fixture
def task(client: FlaskClient) -> dict[str, Any]:
    task = make_task()
    task["job_id"] = post(client, "/submit", {"task": task}).json["slurm_job_id"]
    return task


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def poll(app: Flask) -> None:
    services: Services = app.extensions["slurm_proxy"]
    fence = services.store.acquire_lease("test", utc_now(), utc_now() + timedelta(minutes=1))
    assert fence is not None
    services.monitor._poller.poll_once(utc_now(), fence)


def subscriptions_of(app: Flask) -> StateSubscriptions:
    found: StateSubscriptions = app.extensions["slurm_proxy"].waiting._subscriptions
    return found


def begin_to_wait(pool: ThreadPoolExecutor, app: Flask, path: str, **options: Any) -> Future[Any]:
    """Send a request in another thread, and return once it waits."""
    waiting = len(subscriptions_of(app))
    answer = pool.submit(lambda: app.test_client().get(path, **options))
    until(lambda: len(subscriptions_of(app)) > waiting or answer.done(), 10)
    return answer


@pytest.mark.parametrize(
    "wait", ["", "-1", "61", "60.01", "1e9", "1e999", "nan", "inf", "x", "1s", "+1", "٣", " 1", "9" * 99]
)
@pytest.mark.parametrize("path", ["/monitor/task_uuid/none", "/monitor/slurm_job_id/7"])
def test_a_wait_that_is_no_number_from_0_to_60_is_refused(client: FlaskClient, path: str, wait: str) -> None:
    response = client.get(path, query_string={"wait": wait})
    check_error(response, 400, "invalid_request")
    assert response.json["details"] == ["wait: must be a number of seconds from 0 to 60"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("until=end", "until: needs wait, the number of seconds to wait"),
        ("wait=1&until=over", "until: must be one of end, begin, change"),
        ("wait=1&until=", "until: must be one of end, begin, change"),
        ("wait=1&wait=2", "wait: may occur only once"),
        ("wait=1&until=end&until=begin", "until: may occur only once"),
        ("waits=1", "waits: is not known here; did you mean wait?"),
        ("WAIT=1", "WAIT: is not known here; did you mean wait?"),
        ("wait=1&untill=begin", "untill: is not known here; did you mean until?"),
    ],
)
def test_a_wrong_or_misspelt_parameter_is_refused(
    client: FlaskClient, task: dict[str, Any], query: str, words: str
) -> None:
    response = client.get(f"/monitor/task_uuid/{task['uuid']}?{query}")
    check_error(response, 400, "invalid_request")
    assert response.json["details"] == [words]  # type: ignore[index]


@pytest.mark.parametrize("wait", ["0", "0.0", "0.05", "00.1", "1e-2", "0.1&until=change"])
def test_the_answer_after_the_time_is_that_of_a_request_without_wait(
    client: FlaskClient, task: dict[str, Any], wait: str
) -> None:
    for path in (f"/monitor/task_uuid/{task['uuid']}", f"/monitor/slurm_job_id/{task['job_id']}/"):
        plain = client.get(path)
        waited = client.get(f"{path}?wait={wait}")
        assert (waited.status_code, waited.json) == (200, plain.json)
        assert "Retry-After" not in waited.headers


def test_other_parameters_are_ignored_as_before(client: FlaskClient, task: dict[str, Any]) -> None:
    assert client.get(f"/monitor/task_uuid/{task['uuid']}?_=1&pretty").status_code == 200


@pytest.mark.parametrize(
    ("until_", "state"), [("end", "COMPLETED"), ("begin", "RUNNING"), ("change", "RUNNING")]
)
def test_the_answer_comes_as_soon_as_it_happens(
    app: Flask,
    slurm: FakeSlurm,
    task: dict[str, Any],
    pool: ThreadPoolExecutor,
    until_: str,
    state: str,
) -> None:
    paths = (f"/monitor/task_uuid/{task['uuid']}", f"/monitor/slurm_job_id/{task['job_id']}")
    answers = [begin_to_wait(pool, app, f"{path}?wait=60&until={until_}") for path in paths]
    began = time.monotonic()
    slurm.put(task["job_id"], JobState(state))
    poll(app)
    for answer in answers:
        response = answer.result(30)
        assert response.json["monitor"]["slurm_job_state"] == state
        assert "Retry-After" not in response.headers
    assert time.monotonic() - began < 30


def test_many_requests_that_wait_for_a_job_cost_slurm_one_request(
    app: Flask, slurm: FakeSlurm, task: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    path = f"/monitor/task_uuid/{task['uuid']}?wait=60&until=begin"
    answers = [begin_to_wait(pool, app, path) for _ in range(20)]
    slurm.put(task["job_id"], JobState.RUNNING)
    poll(app)
    slurm.calls.clear()
    assert {answer.result(30).status_code for answer in answers} == {200}
    assert slurm.calls == ["read_states"]


def test_a_job_that_has_ended_costs_slurm_no_request(
    app: Flask, client: FlaskClient, slurm: FakeSlurm, task: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    path = f"/monitor/task_uuid/{task['uuid']}?wait=60"
    slurm.calls.clear()
    answer = begin_to_wait(pool, app, path)
    assert slurm.calls == []
    slurm.put(task["job_id"], JobState.FAILED)
    poll(app)
    assert answer.result(30).json["monitor"]["ended"]
    assert client.get(path).json == answer.result().json
    assert "find_job" not in slurm.calls


def test_another_process_sees_the_change(site: Site, pool: ThreadPoolExecutor) -> None:
    task = make_task()
    key = site.key()
    job_id = site.call("POST", "/submit", key, {"task": task}).json["slurm_job_id"]
    other = site.another()
    try:
        headers = {"Authorization": f"Bearer {key}"}
        answer = begin_to_wait(pool, other, f"/monitor/task_uuid/{task['uuid']}?wait=60", headers=headers)
        site.slurm.put(job_id, JobState.COMPLETED)
        poll(site.app)
        assert answer.result(30).json["monitor"]["succeeded"]
    finally:
        other.extensions["slurm_proxy"].waiting.stop()
        other.extensions["slurm_proxy"].store.close()


def test_another_users_task_is_answered_at_once_as_an_unknown_one(site: Site) -> None:
    task = make_task()
    bob = site.key(ALICE.model_copy(update={"users": ("bob",)}))
    job_id = site.call("POST", "/submit", site.key(), {"task": task}).json["slurm_job_id"]
    for path in ("task_uuid/{}", "slurm_job_id/{}"):
        theirs, none = (task["uuid"], "none") if "uuid" in path else (str(job_id), "77")
        began = time.monotonic()
        answers = [site.call("GET", f"/monitor/{path.format(name)}?wait=60", bob) for name in (theirs, none)]
        assert time.monotonic() - began < 30
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].text.replace(theirs, none) == answers[1].text


def test_a_reservation_that_is_released_meanwhile_is_answered_as_an_unknown_task(
    app: Flask, pool: ThreadPoolExecutor
) -> None:
    services: Services = app.extensions["slurm_proxy"]
    record = make_record(created_at=utc_now(), updated_at=utc_now())
    services.store.add_record(record)
    answer = begin_to_wait(pool, app, f"/monitor/task_uuid/{record.uuid}?wait=60")
    services.store.release_reservation(record)
    check_error(answer.result(30), 400, "unknown_task")


def test_a_key_that_is_revoked_meanwhile_is_good_until_the_answer(
    site: Site, pool: ThreadPoolExecutor
) -> None:
    task, key = make_task(), site.key()
    job_id = site.call("POST", "/submit", key, {"task": task}).json["slurm_job_id"]
    path, headers = f"/monitor/task_uuid/{task['uuid']}?wait=60", {"Authorization": f"Bearer {key}"}
    answer = begin_to_wait(pool, site.app, path, headers=headers)
    assert site.keys.revoke(key.split("_")[1])
    site.slurm.put(job_id, JobState.COMPLETED)
    poll(site.app)
    assert answer.result(30).status_code == 200
    assert site.call("GET", path, key).status_code == 401


def test_a_waiting_request_counts_once(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_REQUESTS_PER_MINUTE=4)
    task, key = make_task(), site.key()
    site.call("POST", "/submit", key, {"task": task})
    path = f"/monitor/task_uuid/{task['uuid']}?wait=0.1"
    statuses = [site.call("GET", path, key).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_the_log_says_how_long_a_request_waited(
    client: FlaskClient, task: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.requests")
    client.get(f"/monitor/task_uuid/{task['uuid']}?wait=0.2")
    client.get(f"/monitor/task_uuid/{task['uuid']}")
    waited, plain = caplog.records[-2:]
    assert waited.getMessage().endswith(" ms, of which it waited 0.2 s")
    assert 0.2 <= waited.__dict__["waited"] <= waited.__dict__["duration"]
    assert plain.getMessage().endswith(" ms")
    assert "waited" not in plain.__dict__


@pytest.fixture
def batch(client: FlaskClient) -> dict[str, int]:
    """Two tasks: their job ids by their uuids."""
    tasks = [make_task() for _ in range(2)]
    return {task["uuid"]: post(client, "/submit", {"task": task}).json["slurm_job_id"] for task in tasks}


def path_of(batch: dict[str, int], query: str) -> str:
    return "/monitor?" + "&".join([*(f"uuid={uuid}" for uuid in batch), query])


@pytest.mark.parametrize("query", ["wait=60", "wait=60&until=change"])
def test_a_batch_is_answered_as_soon_as_one_task_changes(
    app: Flask, slurm: FakeSlurm, batch: dict[str, int], pool: ThreadPoolExecutor, query: str
) -> None:
    slurm.calls.clear()
    answer = begin_to_wait(pool, app, path_of(batch, query))
    slurm.put(list(batch.values())[1], JobState.RUNNING)
    poll(app)
    response = answer.result(30)
    assert [task["slurm_job_state"] for task in response.json["tasks"]] == ["PENDING", "RUNNING"]
    assert "Retry-After" not in response.headers
    assert "find_job" not in slurm.calls


def test_a_batch_that_waits_for_the_end_is_answered_when_all_have_ended(
    app: Flask, slurm: FakeSlurm, batch: dict[str, int], pool: ThreadPoolExecutor
) -> None:
    answer = begin_to_wait(pool, app, path_of(batch, "wait=60&until=end"))
    for job_id in batch.values():
        assert not answer.done()
        slurm.put(job_id, JobState.COMPLETED)
        poll(app)
    assert [task["ended"] for task in answer.result(30).json["tasks"]] == [True, True]


def test_unknown_tasks_of_a_batch_are_not_waited_for(
    app: Flask, client: FlaskClient, slurm: FakeSlurm, batch: dict[str, int], pool: ThreadPoolExecutor
) -> None:
    none = client.get("/monitor?uuid=none&wait=60&until=end").json
    assert none == {"tasks": [], "next": None, "unknown": ["none"]}
    answer = begin_to_wait(pool, app, path_of(batch, "uuid=none&wait=60&until=end"))
    for job_id in batch.values():
        slurm.put(job_id, JobState.FAILED)
    poll(app)
    assert answer.result(30).json["unknown"] == ["none"]


def test_a_batch_does_not_wait_for_the_tasks_of_other_users(site: Site) -> None:
    task = make_task()
    site.call("POST", "/submit", site.key(), {"task": task})
    bob = site.key(ALICE.model_copy(update={"users": ("bob",)}))
    began = time.monotonic()
    answer = site.call("GET", f"/monitor?uuid={task['uuid']}&wait=60", bob)
    assert time.monotonic() - began < 30
    assert answer.json == {"tasks": [], "next": None, "unknown": [task["uuid"]]}


def test_the_answer_about_a_batch_after_the_time_is_that_without_wait(
    client: FlaskClient, batch: dict[str, int]
) -> None:
    assert client.get(path_of(batch, "wait=0.05")).json == client.get(path_of(batch, "")).json


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("wait=1", "wait: needs uuid, the tasks to wait for"),
        ("uuid=a&wait=61", "wait: must be a number of seconds from 0 to 60"),
        ("uuid=a&wait=1&until=begin", "until: must be one of change, end"),
        ("uuid=a&wait=1&wait=2", "wait: may occur only once"),
    ],
)
def test_a_batch_with_wrong_parameters_is_refused(client: FlaskClient, query: str, words: str) -> None:
    response = client.get(f"/monitor?{query}")
    check_error(response, 400, "invalid_request")
    assert response.json["details"] == [words]  # type: ignore[index]


def test_a_batch_without_wait_takes_until_as_a_filter(client: FlaskClient, batch: dict[str, int]) -> None:
    assert client.get(path_of(batch, "until=1h")).json["tasks"] == []  # type: ignore[index]


class SmallServer:
    """The application behind slots, as a server runs it."""

    def __init__(self, app: Flask, slots: int, max_waiting: int) -> None:
        self._application = RequestSlots(app.wsgi_app, slots, max_waiting, MAX_BODY_BYTES)
        self.app = app

    def get(self, path: str) -> tuple[int, dict[str, str], Any]:
        response = Client(self._application).get(path, environ_base={"REMOTE_ADDR": "127.0.0.1"})
        return response.status_code, dict(response.headers), response.text


def test_waiting_requests_leave_the_slots_to_others(
    app: Flask, slurm: FakeSlurm, task: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    server = SmallServer(app, slots=1, max_waiting=10)
    path = f"/monitor/task_uuid/{task['uuid']}?wait=60"
    answers = [pool.submit(server.get, path) for _ in range(10)]
    until(lambda: len(subscriptions_of(app)) == 10, 10)
    assert server.get("/ping")[0] == 200
    slurm.put(task["job_id"], JobState.COMPLETED)
    poll(app)
    for answer in answers:
        status, headers, body = answer.result(30)
        assert status == 200
        assert json.loads(body)["monitor"]["ended"]
        assert "Retry-After" not in headers


def test_requests_beyond_the_limit_get_the_present_answer_at_once(
    app: Flask, client: FlaskClient, task: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    server = SmallServer(app, slots=2, max_waiting=3)
    path = f"/monitor/task_uuid/{task['uuid']}"
    answers = [pool.submit(server.get, f"{path}?wait=60") for _ in range(3)]
    until(lambda: len(subscriptions_of(app)) == 3, 10)
    status, headers, body = server.get(f"{path}?wait=60")
    assert (status, json.loads(body)) == (200, client.get(path).json)
    assert int(headers["Retry-After"]) >= 1
    app.extensions["slurm_proxy"].waiting.stop()
    for answer in answers:
        assert answer.result(30)[1]["Retry-After"] == "1"
    until(lambda: "waiting" not in [thread.name for thread in threading.enumerate()], 10)
