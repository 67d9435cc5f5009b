"""The routes over HTTP's own rules, on a cluster in memory: what callers rely on, and every bad request."""

import copy
import gzip
import json
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.constants import MAX_BODY_BYTES
from app.environment import read_settings
from app.errors import Forbidden, SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.caller import Caller, Grant, Scope
from app.models.record import NotificationStatus, utc_now
from app.services import build_services
from app.store.notification_queue import Outcome
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task

KEY = "c2VjcmV0IGtleSBmb3IgdGVzdHM="


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def app(tmp_path: Path, slurm: Any) -> Iterator[Flask]:
    config = {
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "MONGODB_URI": None,
        "SQLITE_PATH": tmp_path / "store.sqlite3",
        "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
    }
    app = create_app(config)
    services = build_services(read_settings(config), slurm)
    app.extensions["slurm_proxy"] = services
    services.store.prepare()
    yield app
    services.store.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def post(client: FlaskClient, path: str, body: Any, **options: Any) -> Any:
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(path, data=data, **options)


# --- what callers rely on --------------------------------------------------------------------


def test_ping(client: FlaskClient) -> None:
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
    assert listed.json == {"monitor": [(answer or {})["monitor"] for answer in single]}
    assert client.get(f"/monitor/slurm_job_state/RUNNING{slash}").json == {"monitor": []}


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
    assert answer.json == {"uuid": task["uuid"], "slurm_job_id": job_id, "slurm_username": "alice"}
    assert slurm.jobs[job_id].job_state is JobState.CANCELLED
    assert client.get(f"/monitor/task_uuid/{task['uuid']}").status_code == 200
    check_error(client.delete(f"/monitor/slurm_job_id/{job_id}{slash}"), 409, "already_over")
    check_error(client.delete(f"/monitor/slurm_job_id/999999{slash}"), 404, "unknown_task")
    check_error(client.delete(f"/monitor/slurm_job_id/abc{slash}"), 400, "invalid_request")


def test_timestamps_are_utc_with_an_offset(client: FlaskClient) -> None:
    task = make_task()
    post(client, "/submit", {"task": task})
    monitor = client.get(f"/monitor/task_uuid/{task['uuid']}").json["monitor"]  # type: ignore[index]
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", monitor[name])


def test_watch_answers_the_contents_of_monitor(client: FlaskClient, slurm: FakeSlurm) -> None:
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
def test_when_slurm_fails_the_answer_says_whether_to_try_again(
    client: FlaskClient, slurm: FakeSlurm, failure: Any, status: int, code: str
) -> None:
    slurm.failure = failure
    response = post(client, "/submit", {"task": make_task()})
    assert (response.status_code, response.json["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status >= 500)


# --- HTTP itself -----------------------------------------------------------------------------


def check_error(response: Any, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert response.text.endswith("}\n")
    assert response.json["code"] == code
    assert re.fullmatch(r"[^\n<>]+", response.json["error"])


@pytest.mark.parametrize(
    "path", ["/", "/nope", "//submit", "/monitor/x", "/monitor/task_uuid", "/slurm/jobs", "/submit/x"]
)
def test_no_such_route(client: FlaskClient, path: str) -> None:
    check_error(client.get(path), 404, "not_found")
    assert "GET /docs" in client.get(path).json["error"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/submit"),
        ("PUT", "/submit/"),
        ("DELETE", "/monitor"),
        ("POST", "/ping"),
        ("POST", "/monitor/task_uuid/x"),
        ("GET", "/slurm/job/submit"),
        ("GET", "/slurm/job/submit/"),
        ("DELETE", "/slurm/job/submit"),
        ("POST", "/slurm/job/1"),
    ],
)
def test_wrong_method(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(path, method=method)
    check_error(response, 405, "method_not_allowed")
    (taken,) = {"GET", "POST"} & set(response.headers["Allow"].split(", "))
    assert response.json["error"] == f"this route takes {taken} alone"  # type: ignore[index]


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


def test_too_large_a_body(client: FlaskClient, slurm: FakeSlurm) -> None:
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


# --- bad requests ----------------------------------------------------------------------------

REMOVE = object()


def changed(path: str, value: Any, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with the value at the dotted `path` replaced or removed."""
    body = copy.deepcopy(base)
    *parents, last = path.split(".")
    place: Any = body
    for key in parents:
        place = place.setdefault(key, {})
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return body


NOT_OBJECTS: list[Any] = [None, 1, "x", [], True]
NOT_STRINGS: list[Any] = [None, 1, 1.5, True, [], {}]
NOT_MEMORY = ["4GiB", "4.5G", "4 G", "G", "4P", "B", "4BB", "99999999T", "9" * 4000]
NOT_TIMES = ["1:2:3:4", "5:", ":30", "1-", "1-:30", "-5", "1 h", "1h", "99999999-0", "never", "9" * 4000]
NOT_COUNTS = [0, -1, 1.5, "1", True, [], {}, 2**31, 2**62]
BAD_PATHS = ["relative", "", "/a\nb", "/a\\b", "/" + "x" * 1024, "~/x"]
BAD_WORDS = ["", "a\nb", "a\x07b", "x" * 1025]


def each(*values: Any) -> tuple[Any, ...]:
    return values


BAD_SUBMISSIONS: list[tuple[str, Any]] = [
    *[("task", value) for value in NOT_OBJECTS],
    *[
        (f"task.{name}", REMOVE)
        for name in ("name", "username", "cwd", "uuid", "dirs", "slurm", "cmd", "params")
    ],
    *[(f"task.{name}", value) for name in ("name", "username", "cwd", "uuid") for value in NOT_STRINGS],
    *[("task.name", value) for value in ("unknown", "Generic", "")],
    *[
        ("task.username", value)
        for value in (
            "",
            "Alice",
            "al ice",
            "1st",
            "-x",
            "a" * 33,
            "al;id",
            "alice\n",
            "../x",
            "ünal",
            "root",
            "slurm",
        )
    ],
    *[("task.uuid", value) for value in ("", "a b", "a/b", "x" * 129, "a\n", "ü", "$ne", "a%2fb", "<b>")],
    *[("task.cwd", value) for value in BAD_PATHS],
    *[("task.dirs", value) for value in NOT_OBJECTS],
    *[(f"task.dirs.{name}", REMOVE) for name in ("parent", "input", "output", "error")],
    *[
        (f"task.dirs.{name}", value)
        for name in ("parent", "output")
        for value in each(*BAD_PATHS, None, 1, [])
    ],
    *[("task.slurm", value) for value in NOT_OBJECTS],
    *[
        (f"task.slurm.{name}", value)
        for name in ("cpus_per_task", "nodes", "ntasks_per_node")
        for value in NOT_COUNTS
    ],
    *[
        (f"task.slurm.{name}", value)
        for name in ("mem", "mem_per_cpu", "time", "time_minutes", "time_min", "switches")
        for value in each(
            -1, 1.5, True, [], {}, 2**31, 2**62, "", "-1", "+1", " 1", "1 ", "1.5", "1e3", "\u0663"
        )
    ],
    *[(f"task.slurm.{name}", value) for name in ("mem", "mem_per_cpu") for value in NOT_MEMORY],
    *[(f"task.slurm.{name}", value) for name in ("time", "time_minutes", "time_min") for value in NOT_TIMES],
    *[("task.slurm.time", value) for value in ("1", "90")],
    *[("task.slurm.time_min", value) for value in (0, "0", "0:00", "UNLIMITED")],
    *[("task.slurm.switches", value) for value in (0, "0", "0@5", "1@", "@5", "1@x", "1@2@3", "many")],
    *[("task.argv", value) for value in each("echo", [], {}, [1], [None], ["a", ["b"]], 1)],
    *[
        (f"task.slurm.{name}", value)
        for name in ("partition", "job_name", "account")
        for value in [*BAD_WORDS, 1, {}]
    ],
    *[
        (f"task.slurm.{name}", value)
        for name in ("output", "error")
        for value in each("", "a/b", "/abs", "..", ".", "a\nb", "a\\b", "x" * 256, 7, [])
    ],
    *[
        ("task.slurm.environment", value)
        for value in (
            "",
            "PATH",
            1,
            True,
            ["A=1", "B"],
            ["=x"],
            ["A B=1"],
            [1],
            {"A": 1},
            {"": "x"},
            {"1A": "x"},
            {"A=": "x"},
        )
    ],
    *[(f"task.slurm.{name}", "yes") for name in ("hold", "requeue", "exclusive")],
    *[("task.slurm.begin", value) for value in ("tomorrow", "2026-01-01T00:00:00", 0, 1.5, True, 2**40)],
    ("task.slurm.nice", "1"),
    ("task.slurm.open_mode", "overwrite"),
    ("task.slurm.gpus", 0),
    *[(f"task.slurm.{name}", 1) for name in ("memory", "cpu_per_task", "Time", "partitions", "walltime")],
    *[("task.cmd", value) for value in each("", " \n", 1, [], {})],
    *[("task.params", value) for value in each("-e", {}, [1], [None], [["x"]], 1)],
    *[("task.notification", value) for value in NOT_OBJECTS],
    *[("task.notification.methods", value) for value in each("email", {}, ["pigeon"], [1], [None])],
    *[
        ("task.notification.params", value)
        for value in each([], "x", {"pigeon": {}}, {"email": []}, {"email": "x"})
    ],
    ("task.notification.typo", []),
    *[
        ("task.notification.events", value)
        for value in each("end", {}, ["ENDE"], ["none"], [1], [None], ["time_limit"])
    ],
    *[("task.notification.events", [{"pending_over": value}]) for value in (0, -1, "60", 1.5, None)],
    ("task.notification.events", [{"pending_over": 5, "more": 1}]),
    ("task.notification.events", ["end"] * 21),
    *[
        (f"task.notification.params.email.{name}", value)
        for name in ("sender", "recipient")
        for value in (REMOVE, "", "nobody", "a@", "@b", "a@b\r\nBcc: c@d", "a@b, c@d", "a b@c", 1)
    ],
    *[
        ("task.notification.params.email.recipient", value)
        for value in ([], [""], ["a@b.c", "x"], [["a@b.c"]], ["a@b.c"] * 101)
    ],
    *[("task.notification.params.email.subject", value) for value in each("a\nBcc: x@y", "", 1, [])],
    *[("task.notification.params.email.body", value) for value in each(1, {}, [])],
    ("task.notification.params.email.bcc", "x@example.com"),
    ("extra", 1),
]


@pytest.mark.parametrize(("path", "value"), BAD_SUBMISSIONS)
def test_a_bad_submission_names_its_field(
    client: FlaskClient, slurm: FakeSlurm, path: str, value: Any
) -> None:
    base = {"task": make_task(notification=make_email())}
    response = post(client, "/submit", changed(path, value, base))
    check_error(response, 400, "invalid_request")
    named = [fault for fault in response.json["details"] if re.match(re.escape(path) + r"[.:\[]", fault)]
    assert named, response.json
    assert response.json["error"] == "; ".join(response.json["details"])
    assert slurm.calls == []


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"{", "body"),
    (b"null", "body"),
    (b"[]", "body"),
    (b'"task"', "body"),
    (b"{}", "task"),
    (b'{"task": {"uuid": "a",}}', "body"),
    (b"task=1", "body"),
    (b"\xff\xfe", "body"),
    (b'\xef\xbb\xbf{"task": 1}', "task"),
    (b'\xef\xbb\xbf\xef\xbb\xbf{"task": 1}', "body"),
    (b'{"task"\xef\xbb\xbf: 1}', "body"),
    ('{"task": 1}'.encode("utf-16"), "body"),
    (b'{"task": NaN}', "body"),
    (b'{"task": 1e999}', "task"),
    (b'{"task": {"x": -1e999}}', "task.x"),
    (b'{"task": {"a": 1, "a": 2}}', "'a'"),
    (b'{"task": {"x": "\\ud800"}}', "task.x"),
    (b'{"task": {"x": "a\\u0000b"}}', "task.x"),
    (b'{"task": {"x": {"a\\u0000b": 1}}}', "task.x"),
    (b'{"task": {"x": [1, 99999999999999999999]}}', "task.x[1]"),
    (b'{"task": ' + b"9" * 5000 + b"}", "body"),
    (b"[" * 100_000, "body"),
    (b'{"task": ' + b'{"x":' * 60 + b"1" + b"}" * 60 + b"}", "task.x.x.x"),
    (b"<task/>", "body"),
]


@pytest.mark.parametrize("path", ["/submit", "/monitor"])
@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
def test_a_bad_body_is_told_from_a_bad_field(
    client: FlaskClient, slurm: FakeSlurm, path: str, body: bytes, field: str
) -> None:
    response = post(client, path, body)
    check_error(response, 400, "invalid_request")
    if path == "/submit" or field != "task":
        assert response.json["error"].startswith(field), response.json
    assert slurm.calls == []


@pytest.mark.parametrize(
    ("body", "is_form"),
    [
        (b"task=1", True),
        (b"task[name]=generic&task[uuid]=a", True),
        (b"task%5Bname%5D=generic", True),
        (b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\n{}\r\n--x--\r\n', True),
        (b'{"a=b": 1,}', False),
        (b"generic", False),
        (b"-1=", True),
        (b"", False),
    ],
)
def test_a_form_is_told_from_bad_json(client: FlaskClient, body: bytes, is_form: bool) -> None:
    error = post(client, "/submit", body).json["error"]
    assert (error == "body: must be a JSON object, not a form") is is_form, error


NO_JOB_IDS = [2**32 - 3, 2**32 - 2, 2**32 - 1, 2**32]  # Slurm's words for "no job", and more than 32 bits

BAD_MONITORS: list[tuple[str, Any]] = [
    *[("monitor", value) for value in NOT_OBJECTS],
    *[("monitor.task", value) for value in [*NOT_OBJECTS, REMOVE]],
    *[
        (f"monitor.task.{name}", value)
        for name in ("username", "uuid")
        for value in [*NOT_STRINGS, "", "a b", REMOVE]
    ],
    *[
        ("monitor.slurm_job_id", value)
        for value in (REMOVE, None, 0, -1, 1.5, "5", True, [], {}, *NO_JOB_IDS, 2**62)
    ],
    *[("monitor.slurm_job_state", value) for value in each("DONE", "", 1, [], "running")],
    *[("monitor.task.notification", value) for value in NOT_OBJECTS],
    ("monitor.task.notification.methods", ["pigeon"]),
    ("monitor.task.notification.params.email.recipient", "nobody"),
]


@pytest.mark.parametrize(("path", "value"), BAD_MONITORS)
def test_a_bad_monitor_request_names_its_field(
    client: FlaskClient, slurm: FakeSlurm, path: str, value: Any
) -> None:
    task = {"username": "alice", "uuid": "w", "notification": make_email()}
    response = post(client, "/monitor", changed(path, value, {"monitor": {"task": task, "slurm_job_id": 5}}))
    check_error(response, 400, "invalid_request")
    assert any(re.match(re.escape(path) + r"[.:\[]", fault) for fault in response.json["details"]), (
        response.json
    )
    assert slurm.calls == []


def test_there_are_enough_bad_requests() -> None:
    assert len(BAD_SUBMISSIONS) + 2 * len(BAD_BODIES) + len(BAD_MONITORS) >= 150


def test_every_fault_is_listed_at_once(client: FlaskClient) -> None:
    task = make_task(name="x", username="root", cwd="x", params=[1], slurm={"memm": 1, "time": -1})
    task["notification"] = make_email(recipient="nobody")
    details = post(client, "/submit", {"task": task}).json["details"]
    fields = [fault.partition(":")[0] for fault in details]
    assert sorted(fields) == sorted(
        [
            "task.name",
            "task.username",
            "task.cwd",
            "task.params[0]",
            "task.slurm.time",
            "task.slurm.memm",
            "task.notification.params.email.recipient",
        ]
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("cpu-per-tasks", "did you mean cpus_per_task?"),
        ("Partition", "did you mean partition?"),
        ("switch", "did you mean switches?"),
        ("mem-per-gpu", "did you mean mem_per_cpu?"),
        ("mail_type", "GET /docs lists the known keys"),
        ("time_limit", "GET /docs lists the known keys"),  # is no time_min
        ("chdir", "GET /docs lists the known keys"),
        ("x" * 5000, "GET /docs lists the known keys"),
    ],
)
def test_unknown_option_is_refused_with_a_suggestion_only_if_one_is_near(
    client: FlaskClient, option: str, words: str
) -> None:
    details = post(client, "/submit", {"task": make_task(slurm={option: 1})}).json["details"]
    assert details == [f"task.slurm.{option[:60]}: is not known; {words}"]


def test_unknown_key_beside_few_known_ones_is_refused_with_their_list(client: FlaskClient) -> None:
    body = {"task": make_task(notification={"method": [], "mail": []}), "job": {}}
    assert post(client, "/submit", body).json["details"] == [
        "task.notification.method: is not known; did you mean methods?",
        "task.notification.mail: is not known; known here: methods, params, events",
        "job: is not known; known here: task",
    ]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("uuid", 5, "must be a string of 1 to 128 letters, digits, '.', '_', ':' or '-'"),
        ("cmd", ["echo"], "must be a command, a string that is not empty"),
        (
            "slurm.time",
            35791395,
            "must be hours, at most 35791394 (minutes where the server's TASK_TIME_UNIT says so), or a time"
            ' such as "90:30" (minutes and seconds) or "1-02:30:00"; 0 for no limit',
        ),
        (
            "slurm.time_minutes",
            2**31,
            'must be minutes, or a time such as "90:30" (minutes and seconds) or "1-02:30:00"; 0 for no'
            " limit",
        ),
        ("slurm.nodes", 2**31, "must be a positive integer of at most 2147483647"),
        (
            "slurm.mem",
            "4GiB",
            'must be megabytes, or a size such as "4G" (K, M, G or T); 0 for all memory of a node',
        ),
    ],
)
def test_a_fault_says_what_is_expected(client: FlaskClient, path: str, value: Any, words: str) -> None:
    body = changed(f"task.{path}", value, {"task": make_task()})
    assert post(client, "/submit", body).json["details"] == [f"task.{path}: {words}"]


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


@pytest.mark.parametrize("path", ["/submit", "/monitor", "/slurm/job/submit?username=alice"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_a_compressed_body_is_refused_as_an_unsupported_media_type(
    client: FlaskClient, slurm: FakeSlurm, path: str, encoding: str
) -> None:
    body = gzip.compress(json.dumps({"task": make_task()}).encode())
    answer = client.post(path, data=body, headers={"Content-Encoding": encoding})
    check_error(answer, 415, "unsupported_encoding")
    assert slurm.calls == []


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
def test_a_key_that_looks_misspelt_is_kept_and_asked_after(
    client: FlaskClient, fields: dict[str, Any], meant: str | None
) -> None:
    task = make_task(**fields)
    answer = post(client, "/submit", {"task": task}).json
    word = next(iter(fields))
    warning = f"task.{word}: is not known, and only kept; did you mean {meant}?"
    assert answer.get("warnings", []) == ([warning] if meant else [])
    monitor = client.get(f"/monitor/task_uuid/{task['uuid']}").json["monitor"]  # type: ignore[index]
    assert monitor["task"] == task
    assert monitor.get("warnings", []) == answer.get("warnings", [])


def test_so_it_is_where_a_job_is_watched(client: FlaskClient, slurm: FakeSlurm) -> None:
    slurm.put(5, JobState.RUNNING)
    task = {"username": "alice", "uuid": "w", "notifications": {}, "enviroment": ""}
    answer = post(client, "/monitor", {"monitor": {"task": task, "slurm_job_id": 5}}).json
    words = "is not known, and only kept; did you mean notification?"
    assert answer["warnings"] == [f"task.notifications: {words}"]


@pytest.mark.timed
def test_many_keys_of_the_callers_own_are_soon_compared(client: FlaskClient) -> None:
    began = time.monotonic()
    own: dict[str, Any] = {f"notifications{number}{'x' * 50}": 1 for number in range(9000)}
    assert post(client, "/submit", {"task": make_task(**own)}).status_code == 200
    assert time.monotonic() - began < 2


CHANNELS: list[tuple[str, dict[str, Any], str]] = [
    ("gmail", {"sender": "a@example.com", "recipient": "b@example.com"}, "gmail:*@example.com"),
    ("slack", {"channel": "#jobs"}, "slack:#jobs"),
    ("rabbitmq", {"queue": "jobs"}, "rabbitmq: jobs"),
    ("webhook", {"url": "https://h.example/jobs"}, "webhook:https://h.example/*"),
    ("apprise", {"target": "team"}, "apprise:team"),
]


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


def test_a_wrong_target_is_a_fault_where_others_are_configured(client: FlaskClient, app: Flask) -> None:
    settings = read_settings(
        {
            "NOTIFICATIONS_WEBHOOK_RECEIVERS": {"other.example": "c2VjcmV0" * 4},
            "NOTIFICATIONS_APPRISE_TARGETS": {"other": "json://other.example"},
        }
    )
    app.extensions["slurm_proxy"].validator._context["settings"] = settings
    for method, params, _ in CHANNELS[-2:]:
        task = make_task(notification={"methods": [method], "params": {method: params}})
        check_error(post(client, "/submit", {"task": task}), 400, "invalid_request")


def test_two_options_that_exclude_each_other(client: FlaskClient) -> None:
    for slurm in ({"time": 1, "time_minutes": 1}, {"mem": 1, "mem_per_cpu": 1}):
        response = post(client, "/submit", {"task": make_task(slurm=slurm)})
        assert response.status_code == 400
        assert "task.slurm: must not give both" in response.json["error"]


def test_an_allowed_service_user_may_run(tmp_path: Path, slurm: Any) -> None:
    config = {
        "SLURM_REST_HOST": "http://127.0.0.1:9",
        "SLURM_JWT_HS256_KEY_BASE64": KEY,
        "MONGODB_URI": None,
        "SQLITE_PATH": tmp_path / "s.sqlite3",
        "TASK_ALLOWED_SERVICE_USERS": "root, daemon",
    }
    app = create_app(config)
    services = build_services(read_settings(config), slurm)
    app.extensions["slurm_proxy"] = services
    services.store.prepare()
    assert post(app.test_client(), "/submit", {"task": make_task("root")}).status_code == 200
    assert post(app.test_client(), "/submit", {"task": make_task("slurm")}).status_code == 400
    services.store.close()


@pytest.mark.parametrize("environment", ["PATH=/bin", ["A=1", "B=x=y"], {"A": "1"}, [], {}])
@pytest.mark.parametrize(
    "extra", [{}, {"exclusive": "user", "begin": "2026-01-01T00:00:00+01:00", "gpus": "a100:2"}]
)
def test_good_options_are_taken(client: FlaskClient, environment: Any, extra: dict[str, Any]) -> None:
    task = make_task(slurm={"environment": environment, **extra})
    assert post(client, "/submit", {"task": task}).status_code == 200


QUEUE = {"queue": "jobs"}


@pytest.mark.parametrize(
    ("notification", "field"),
    [
        (
            {"methods": ["rabbitmq"], "params": {"rabbithq": {"queue": "a"}, "rabbitmq": {"queue": "b"}}},
            "params",
        ),
        ({"methods": ["rabbitmq"], "params": {"rabbitmq": QUEUE, "rabbithq": QUEUE}}, "params"),
        ({"methods": ["rabbithq", "test", "rabbitmq"], "params": {"rabbitmq": QUEUE}}, "methods"),
    ],
)
def test_one_method_under_two_names_is_refused(
    client: FlaskClient, slurm: FakeSlurm, notification: dict[str, Any], field: str
) -> None:
    slurm.put(5, JobState.RUNNING)
    fault = f"task.notification.{field}: must not have both rabbithq and rabbitmq: they are one method"
    submitted = post(client, "/submit", {"task": make_task(notification=notification)})
    check_error(submitted, 400, "invalid_request")
    assert submitted.json["details"] == [fault]
    task = {"username": "alice", "uuid": "w", "notification": notification}
    registered = post(client, "/monitor", {"monitor": {"task": task, "slurm_job_id": 5}})
    assert registered.json["details"] == [f"monitor.{fault}"]


@pytest.mark.parametrize(("method", "key"), [("rabbithq", "rabbitmq"), ("rabbitmq", "rabbithq")])
def test_a_method_may_have_another_name_in_params(client: FlaskClient, method: str, key: str) -> None:
    task = make_task(notification={"methods": [method], "params": {key: QUEUE}})
    assert post(client, "/submit", {"task": task}).status_code == 200


def test_the_least_task_is_enough(client: FlaskClient) -> None:
    assert post(client, "/submit", {"task": make_task(slurm={}, params=[])}).status_code == 200
    least = make_task(name="echo_hello_world", slurm={}, cmd=None, params=None)
    assert post(client, "/submit", {"task": least}).status_code == 200
