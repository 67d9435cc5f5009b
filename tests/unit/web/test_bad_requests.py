"""Every bad request is refused, and the answer names its field."""

import copy
import gzip
import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.environment import read_settings
from app.job_state import JobState
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task
from tests.support.web import CHANNELS, QUEUE, check_error, post

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
    (b'{"task": NaN}', "body: is not JSON: NaN is not a JSON number"),
    (b'{"task": 1e999}', "task"),
    (b'{"task": {"x": -1e999}}', "task.x"),
    (b'{"task": {"a": 1, "a": 2}}', "'a'"),
    (b'{"task": {"x": "\\ud800"}}', "task.x"),
    (b'{"task": {"x": "a\\u0000b"}}', "task.x"),
    (b'{"task": {"x": {"a\\u0000b": 1}}}', "task.x"),
    (b'{"task": {"x": [1, 99999999999999999999]}}', "task.x[1]"),
    (
        b'{"task": ' + b"9" * 5000 + b"}",
        "body: has an integer of thousands of digits; it must fit into 64 bits",
    ),
    (b"[" * 100_000, "body"),
    (b'{"task": ' + b'{"x":' * 60 + b"1" + b"}" * 60 + b"}", "task.x.x.x"),
    (b"<task/>", "body"),
]


@pytest.mark.parametrize("path", ["/submit", "/monitor"])
@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
def test_a_bad_body_is_distinguished_from_a_bad_field(
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
def test_a_form_is_distinguished_from_bad_json(client: FlaskClient, body: bytes, is_form: bool) -> None:
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


@pytest.mark.parametrize("path", ["/submit", "/monitor", "/slurm/job/submit?username=alice"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_a_compressed_body_is_refused_as_an_unsupported_media_type(
    client: FlaskClient, slurm: FakeSlurm, path: str, encoding: str
) -> None:
    body = gzip.compress(json.dumps({"task": make_task()}).encode())
    answer = client.post(path, data=body, headers={"Content-Encoding": encoding})
    check_error(answer, 415, "unsupported_encoding")
    assert slurm.calls == []


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


def test_options_that_exclude_each_other_are_refused(client: FlaskClient) -> None:
    for slurm in ({"time": 1, "time_minutes": 1}, {"mem": 1, "mem_per_cpu": 1}):
        response = post(client, "/submit", {"task": make_task(slurm=slurm)})
        assert response.status_code == 400
        assert "task.slurm: must not give both" in response.json["error"]


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


@pytest.mark.parametrize("query", ["limit=1", "dry_run=true&other=1"])
def test_a_resubmission_with_an_unknown_parameter_submits_nothing(
    client: FlaskClient, slurm: FakeSlurm, query: str
) -> None:
    task = make_task()
    job_id = post(client, "/submit", {"task": task}).json["slurm_job_id"]
    for of_task in (f"task_uuid/{task['uuid']}", f"slurm_job_id/{job_id}"):
        answer = client.post(f"/monitor/{of_task}/resubmit?{query}")
        assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_request")
        assert "is not known here" in answer.get_json()["error"]
    assert len(slurm.submitted) == 1


@pytest.mark.parametrize("action", ["cancel", "hold", "release", "requeue"])
@pytest.mark.parametrize(
    ("query", "body", "fault"),
    [
        ("?dry_run=true", "", "dry_run: is not known here"),
        ("", '{"dry_run": true}', "dry_run: is not known here"),
        ("", '{"reason": "x"}', "reason: is not known here"),
        ("", "dry_run=true", "body: must be a JSON object, not a form"),
    ],
)
def test_an_action_on_one_task_has_no_dry_run(
    client: FlaskClient, slurm: FakeSlurm, action: str, query: str, body: str, fault: str
) -> None:
    task = make_task()
    job_id = post(client, "/submit", {"task": task}).json["slurm_job_id"]
    for of_task in (f"task_uuid/{task['uuid']}", f"slurm_job_id/{job_id}"):
        answer = client.post(f"/monitor/{of_task}/{action}{query}", data=body)
        assert (answer.status_code, answer.get_json()["error"]) == (400, fault)
    assert slurm.jobs[job_id].job_state is JobState.PENDING
    assert slurm.jobs[job_id].held_tasks == 0
