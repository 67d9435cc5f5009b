"""The OpenAPI document agrees with the service: routes, answers, and which requests are accepted."""

import html
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.constants import MAX_BODY_BYTES
from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable, StoreUnavailable
from app.job_state import JobState
from app.models.caller import OPERATOR, Grant, Scope
from app.models.notification_request import EventName
from app.models.record import NotificationStatus, utc_now
from app.models.slurm_options import SlurmOptions
from app.slurm.reply import Reply
from app.store.notification_queue import Outcome
from app.version import read_version
from app.web.openapi.examples import HELLO_WORLD
from app.web.openapi.operations import OPERATIONS
from tests.support.contract import Contract
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task
from tests.support.web import post
from tests.unit.web.test_bad_requests import BAD_MONITORS, BAD_SUBMISSIONS, changed

README = Path(__file__).parents[3] / "README.md"
ERRORS = Path(__file__).parents[3] / "docs/reference/errors.md"


@pytest.fixture
def contract(client: FlaskClient) -> Contract:
    return Contract(client.get("/openapi.json").json or {})


class Caller:
    """Asks, and holds each answer against the document."""

    def __init__(self, client: FlaskClient, contract: Contract) -> None:
        self._client, self._contract = client, contract
        self.seen: set[tuple[str, int]] = set()

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        response = self._client.open(path, method=method, data=data, **options)
        self._contract.check(method, path.partition("?")[0], response)
        self.seen.add((f"{method} {path}", response.status_code))
        return response.json


@pytest.fixture
def call(client: FlaskClient, contract: Contract) -> Caller:
    return Caller(client, contract)


def test_the_document_is_valid_openapi(contract: Contract) -> None:
    assert contract.document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(contract.document).iter_errors()) == []


def test_the_version_is_that_of_pyproject(contract: Contract) -> None:
    project = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]
    assert contract.document["info"]["version"] == read_version() == project["version"]


def functions_of(app: Flask) -> dict[tuple[str, str], str]:
    """Return the name of the function of each route, by method and path."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)): app.view_functions[rule.endpoint].__name__
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_the_document_has_every_route_and_no_others(app: Flask, contract: Contract) -> None:
    assert contract.operations == functions_of(app).keys()


def test_the_function_of_a_route_has_the_name_of_its_operation(app: Flask, contract: Contract) -> None:
    functions = functions_of(app)
    for path, methods in contract.document["paths"].items():
        for method, operation in methods.items():
            name = re.sub("([A-Z])", r"_\1", operation["operationId"]).lower()
            assert functions[method.upper(), path] == name


def test_every_operation_and_field_of_a_task_has_a_description(contract: Contract) -> None:
    schemas = contract.document["components"]["schemas"]
    for methods in contract.document["paths"].values():
        assert all(operation["summary"] for operation in methods.values())
    assert "x-rule" not in json.dumps(contract.document)
    for name in ("Task", "SlurmOptions", "Dirs", "MailParams"):
        for field, schema in schemas[name]["properties"].items():
            assert "description" in json.dumps(schema) or "$ref" in schema, (name, field)


def test_operation_ids_are_short_names_in_camel_case(contract: Contract) -> None:
    ids = {
        f"{method.upper()} {path}": operation["operationId"]
        for path, methods in contract.document["paths"].items()
        for method, operation in methods.items()
    }
    assert ids["POST /submit"] == "submitTask"
    assert ids["GET /monitor/task_uuid/{task_uuid}"] == "getTaskByUuid"
    assert len(set(ids.values())) == len(ids)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+){0,4}", id_) for id_ in ids.values()), ids


def test_each_error_has_an_example_under_each_of_its_statuses(contract: Contract) -> None:
    for method, path in contract.operations:
        for status, response in contract.document["paths"][path][method.lower()]["responses"].items():
            if status in ("200", "default") or (path, status) == ("/readyz", "503"):
                continue
            codes = re.findall(r"^`(\w+)`: ", response["description"], re.M)
            content = response["content"]["application/json"]
            assert codes == [*content["examples"]]
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code
                assert list(contract.answer(content["schema"]).iter_errors(example["value"])) == []


def test_the_example_of_a_duplicate_uuid_stands_under_400_and_has_the_job(contract: Contract) -> None:
    response = contract.document["paths"]["/submit"]["post"]["responses"]["400"]
    example = response["content"]["application/json"]["examples"]["duplicate_uuid"]["value"]
    assert example == {
        "error": "task.uuid: align-17 is already used by job 4711",
        "code": "duplicate_uuid",
        "slurm_job_id": 4711,
    }


@pytest.mark.parametrize("option", SlurmOptions.model_fields)
def test_each_slurm_option_has_a_meaning_and_an_example(
    client: FlaskClient, contract: Contract, option: str
) -> None:
    field = contract.document["components"]["schemas"]["SlurmOptions"]["properties"][option]
    meaning = field["description"].partition(" Must ")[0]
    assert re.fullmatch(r"[A-Z].{15,}\.", meaning)
    (example,) = field["examples"]
    SlurmOptions.model_validate({option: example})
    body = {"task": make_task(slurm={option: example})}
    assert list(contract.request("POST", "/submit").iter_errors(body)) == []
    page = html.unescape(client.get("/docs").text)
    assert meaning.partition("`")[0] in page
    assert f"For example <code>{json.dumps(example)}</code>." in page


@pytest.mark.parametrize(("prefix", "url"), [("", "/"), ("/hpc/proxy", "/hpc/proxy")])
def test_the_server_of_the_document_is_below_the_prefix_of_the_deployment(
    client: FlaskClient, prefix: str, url: str
) -> None:
    document = client.get("/openapi.json", environ_overrides={"SCRIPT_NAME": prefix}).json or {}
    assert document["servers"] == [{"url": url}]
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_the_example_is_that_of_the_readme(contract: Contract) -> None:
    (sent,) = re.findall(r"--post-data='(.*?)' --header", README.read_text())
    assert json.loads(sent) == HELLO_WORLD
    for path in ("/submit", "/monitor"):
        media = contract.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert list(contract.request("POST", path).iter_errors(media["example"])) == []


# --- answers ---------------------------------------------------------------------------------


def test_good_answers(call: Caller, app: Flask, slurm: FakeSlurm) -> None:
    services = app.extensions["slurm_proxy"]
    several = {"methods": ["email", "slack"], "params": make_email()["params"]}
    task = make_task(notification=several, own={"x": [1e30, None]})
    answer = call("POST", "/submit", {"task": task})
    assert answer["warnings"]
    events = ["end", {"pending_over": 30}]
    dry = call("POST", "/submit?dry_run=1", {"task": make_task(notification={**several, "events": events})})
    assert [item["events"] for item in dry["notifications"]] == [events, events]
    assert "warnings" not in call("POST", "/submit/", {"task": make_task()})
    slurm.put(5, JobState.RUNNING, start_time=utc_now())
    call("POST", "/monitor", {"monitor": {"task": {"username": "alice", "uuid": "w"}, "slurm_job_id": 5}})
    job_id = answer["slurm_job_id"]
    states = (JobState.RUNNING, JobState.FAILED)
    for state in states:
        slurm.put(job_id, state, exit_code=1, array_tasks={JobState.FAILED: 2}, cpu_seconds=1.5)
        for path in (f"/monitor/slurm_job_id/{job_id}", f"/monitor/task_uuid/{task['uuid']}/"):
            call("GET", path)
    services.monitor.run_cycle(utc_now())
    claim = services.store.claim("email", "me", utc_now(), utc_now())
    services.store.settle(claim, Outcome(NotificationStatus.DEAD, utc_now(), error="550 no such user"))
    for status in NotificationStatus:
        call("GET", f"/notifications?status={status}")
    (item,) = call("GET", "/notifications")["notifications"]
    call("POST", f"/notifications/{item['id']}/retry")
    assert services.store.claim("email", "me", utc_now(), utc_now()) is not None
    call("POST", f"/notifications/{item['id']}/retry")
    call("POST", "/notifications/retry?method=email")
    assert call("GET", f"/monitor/task_uuid/{task['uuid']}")["monitor"]["notifications"][0]
    for path in ("ping", "diag", "jobs/0", "job/1"):
        call("GET", f"/slurm/{path}")
    call("POST", "/slurm/job/submit?username=alice", {})
    assert call("GET", "/slurm/job/submit")["code"] == "method_not_allowed"
    for path in (
        "/ping",
        "/healthz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/whoami",
        "/catalogue",
        "/cluster",
    ):
        call("GET", f"{path}/")
        call("GET", path)
    assert {status for _, status in call.seen} == {200, 405, 409}


def test_a_record_without_a_job_and_stale_facts(call: Caller, app: Flask, slurm: FakeSlurm) -> None:
    store = app.extensions["slurm_proxy"].store
    task = make_task()
    slurm.failure, slurm.down = SlurmAmbiguous("no answer"), SlurmUnavailable("away")
    call("POST", "/submit", {"task": task})
    assert call("GET", f"/monitor/task_uuid/{task['uuid']}")["slurm"]["job_state"] is None
    record = store.find_by_uuids([task["uuid"]])[task["uuid"]]
    store.fail_reservation(record, "Slurm never took it", utc_now())
    assert call("GET", f"/monitor/task_uuid/{task['uuid']}")["monitor"]["submission_error"]
    other = make_task()
    call("POST", "/submit", {"task": other})
    assert call("GET", f"/monitor/task_uuid/{other['uuid']}")["slurm"]["stale"]


_UNKNOWN = {"error_number": 2017, "error": "Invalid job id specified"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, {"jobs": [], "errors": [{**_UNKNOWN, "source": "op_handler_job"}], "warnings": []}, ""),
        Reply(500, {"meta": {}, "errors": [{**_UNKNOWN, "source": "slurm_load_job"}], "jobs": []}, ""),
        Reply(401, {}, "Authentication failure"),
        Reply(503, {}, "<html>try again</html>"),
    ],
    ids=["24.11", "22.05", "no token", "a proxy"],
)
def test_error_of_slurmrestd_is_passed_on_in_a_form_that_the_document_describes(
    call: Caller, slurm: FakeSlurm, reply: Reply
) -> None:
    slurm.raw_reply = reply
    for path in ("ping", "diag", "jobs/0", "job/77"):
        call("GET", f"/slurm/{path}")
    call("POST", "/slurm/job/submit?username=alice", {})
    assert {status for _, status in call.seen} == {reply.status}


def test_every_error_that_is_easy_to_cause(
    call: Caller, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    task = make_task()
    monitor = {"task": {"username": "bob", "uuid": "w"}, "slurm_job_id": 5}
    slurm.put(5, JobState.RUNNING)
    call("POST", "/submit", {"task": task}, headers={"Idempotency-Key": "k"})
    call("POST", "/submit", {"task": {**task, "own": 1}}, headers={"Idempotency-Key": "k"})
    call("POST", "/submit", {"task": task})
    call("POST", "/submit", {"task": 1})
    call("POST", "/submit", b"\xff")
    call("POST", "/submit", b" " * (MAX_BODY_BYTES + 1))
    call("POST", "/monitor", {"monitor": monitor})
    call("POST", "/monitor", {"monitor": {**monitor, "slurm_job_id": 6}})
    call("GET", "/monitor/slurm_job_id/x")
    call("GET", "/monitor/slurm_job_id/7")
    call("GET", "/monitor/task_uuid/nobody")
    call("GET", "/monitor/task_uuid/a/b")
    call("PUT", "/submit")
    call("GET", "/notifications?status=lost&more=1")
    call("GET", "/whoami?user=alice")
    call("GET", "/catalogue?name=generic")
    call("POST", "/notifications/retry?method=pigeon")
    call("POST", "/notifications/nothing/retry")
    for path in ("/slurm/diag", "/notifications"):
        call("GET", path, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    for failure in (SlurmRefused, SlurmUnavailable, SlurmMisbehaved, SlurmAmbiguous):
        slurm.failure = failure("so it is")
        call("POST", "/submit", {"task": make_task()})
    slurm.down = SlurmMisbehaved("so it is")
    call("POST", "/monitor", {"monitor": monitor})

    def away(*arguments: object) -> None:
        raise StoreUnavailable("the store does not answer")

    for name in ("add_record", "find_by_uuids", "list_notifications"):
        monkeypatch.setattr(app.extensions["slurm_proxy"].store, name, away)
    call("POST", "/submit", {"task": make_task()})
    call("GET", "/monitor/task_uuid/x")
    call("GET", "/notifications")
    assert {status for _, status in call.seen} == {200, 400, 403, 404, 405, 413, 502, 503, 504}


def test_every_code_of_the_errors_page_is_in_the_document(contract: Contract) -> None:
    codes = contract.document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    cells = re.findall(r"^\| [\d, ]+ \| (`.*?) \|", ERRORS.read_text(), re.M)
    words = {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}
    assert len(words) > 10
    assert words <= set(codes)


def test_each_operation_needs_the_scopes_in_its_description(
    app: Flask, client: FlaskClient, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = app.extensions["slurm_proxy"].request_guard
    for operation in OPERATIONS:
        told = contract.document["paths"][operation.path][operation.method.lower()].get("description", "")
        named = [*operation.scopes, *filter(None, [operation.other_scope])]
        assert [word for word in Scope if f"`{word}`" in told] == named, operation.path
        path = re.sub("{.*?}", "1", operation.path)
        if not operation.scopes:
            continue
        sufficient = (operation.scopes[0], operation.other_scope or operation.scopes[0])
        others = {
            scope
            for scope in Scope
            if not any(map(Grant(scopes=frozenset({scope}), users="any").has_scope, sufficient))
        }
        for scopes, is_refused in ((operation.scopes, False), (others, True)):
            caller = replace(OPERATOR, grants=(Grant(scopes=frozenset(scopes), users="any"),))
            monkeypatch.setattr(guard, "authenticate", lambda *_, found=caller, **__: found)
            headers = {"Authorization": "Bearer x"}  # without it, a local request may see the metrics
            response = client.open(path, method=operation.method, data="{}", headers=headers)
            assert (response.status_code == 403) is is_refused, (operation.path, scopes, response.text)


def test_the_words_of_the_document_are_for_callers(client: FlaskClient, contract: Contract) -> None:
    page = client.get("/docs").text
    assert "Authorization: Bearer" in page
    assert "Scope: <code>submit</code> and <code>read</code>." in page
    for name in ("Submitted", "DryRun"):
        assert f"fields of {name}</summary>" in page
    assert "As UnknownTask" not in page
    assert "neither is needed" in contract.document["components"]["securitySchemes"]["bearer"]["description"]
    fields = contract.document["components"]["schemas"]["Task"]["properties"]
    for name in ("cmd", "params"):
        assert "Required for `generic`, unless `argv` is given." in fields[name]["description"]


def test_every_code_of_the_document_is_on_the_errors_page(contract: Contract) -> None:
    codes = contract.document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    assert [code for code in codes if f"`{code}`" not in ERRORS.read_text()] == []


# --- requests --------------------------------------------------------------------------------

# What JSON Schema cannot tell: an address is more than a pattern.
_BEYOND_SCHEMA = {"task.notification.params.email.sender", "task.notification.params.email.recipient"}


def test_the_schema_refuses_what_the_server_refuses(contract: Contract) -> None:
    schema = contract.request("POST", "/submit")
    base = {"task": make_task(notification=make_email())}
    assert schema.is_valid(base)
    taken = {path for path, value in BAD_SUBMISSIONS if schema.is_valid(changed(path, value, base))}
    assert taken <= _BEYOND_SCHEMA
    watched = contract.request("POST", "/monitor")
    task = {"username": "alice", "uuid": "w", "notification": make_email()}
    base = {"monitor": {"task": task, "slurm_job_id": 5}}
    assert watched.is_valid(base)
    taken = {path for path, value in BAD_MONITORS if watched.is_valid(changed(path, value, base))}
    assert taken <= {"monitor.task.notification.params.email.recipient"}


@pytest.mark.parametrize(
    "fields",
    [
        {"slurm": {"time": 1, "time_minutes": 1}},
        {"slurm": {"mem": 1, "mem_per_cpu": 1}},
        {"argv": ["echo"]},
        {"argv": ["echo"], "cmd": None},
        {"argv": [], "cmd": None, "params": None},
        {"cmd": None, "params": None},
        {"own": {"deep": ["a\0"]}},
        {"own": {"a\0": 1}},
        {"own": 2**63},
        {"notification": {"methods": ["email"]}},
        {"notification": {"methods": ["gmail"], "params": make_email()["params"]}},
        {"notification": {"methods": ["rabbithq"], "params": {"rabbitmq": {"exchange": ""}}}},
        {"notification": {"methods": ["rabbitmq"], "params": {"rabbithq": {"queue": "q", "more": 1}}}},
        {"notification": {"methods": ["rabbithq", "rabbitmq"], "params": {"rabbitmq": {"queue": "q"}}}},
        {"notification": {"params": {"rabbitmq": {"queue": "q"}, "rabbithq": {"queue": "q"}}}},
        {"notification": {"methods": ["rabbitmq"], "params": {"rabbitmq": {"exchange": "e\n"}}}},
        {"notification": {"methods": ["webhook"], "params": {"webhook": {"url": "http://example.com/a\\b"}}}},
        {"notification": {"methods": ["webhook"], "params": {"webhook": {"url": "ftp://example.com"}}}},
        {"notification": {"methods": ["webhook"], "params": {"webhook": {"url": "http://example.com/a b"}}}},
    ],
    ids=repr,
)
def test_both_refuse(client: FlaskClient, contract: Contract, fields: dict[str, Any]) -> None:
    body = {"task": make_task(**fields)}
    assert not contract.request("POST", "/submit").is_valid(body)
    assert post(client, "/submit", body).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"slurm": {}},
        {"slurm": {"time": None, "time_minutes": 1, "mem": None, "mem_per_cpu": 1, "array": None}},
        {"slurm": {"environment": "A=b\nc"}},
        {"slurm": {"environment": ["A=1", "B="], "exclusive": "user", "gpus": "a100:2", "nice": -5}},
        {"slurm": {"environment": {}, "begin": "2026-01-01T00:00:00+01:00", "deadline": 4102444800}},
        {"slurm": {"mem": 0, "time": 0, "switches": 1}},
        {"slurm": {"mem_per_cpu": "512k", "time": "1-02:30:00", "time_min": "90:30", "switches": "2@10"}},
        {"slurm": {"mem": "4GB", "time_minutes": "UNLIMITED", "switches": "1@0:30:00"}},
        {"slurm": {"mem": "0", "time": "infinite", "time_min": "5"}},
        {"argv": ["echo", "it's", ""], "cmd": None, "params": None},
        {"name": "echo_hello_world", "argv": ["more"], "cmd": None, "params": None},
        {"notification": {"events": ["BEGIN", "TIME_LIMIT_80", "ALL"]}},
        {"own": {"deep": ["ü", 1.5, None, True, {}]}},
        {"name": "echo_hello_world", "cmd": None, "params": None},
        {"name": "echo_hello_world", "notification": {"methods": ["email"]}},
        {
            "name": "echo_hello_world",
            "notification": {"methods": ["email"], "params": {"email": {"body": "x"}}},
        },
        {"notification": {"methods": ["rabbithq"], "params": {"rabbitmq": {"queue": "q", "body": {"a": 1}}}}},
        {"notification": {"methods": ["rabbitmq"], "params": {"rabbithq": {"exchange": "e"}}}},
        {"notification": {"methods": ["slack", "test"], "params": {"test": {"anything": 1}}}},
        {"notification": make_email(recipient=["a@example.com", "Ann <b@localhost>"])},
        {"notification": {"events": ["end", {"pending_over": 5}]}},
        {"notification": {"events": None}},
    ],
    ids=repr,
)
def test_both_accept(client: FlaskClient, contract: Contract, fields: dict[str, Any]) -> None:
    body = {"task": make_task(**fields)}
    assert list(contract.request("POST", "/submit").iter_errors(body)) == []
    response = post(client, "/submit", body)
    assert response.status_code == 200, response.text


# --- the page --------------------------------------------------------------------------------


def test_the_page_shows_each_operation_and_needs_nothing_from_elsewhere(
    client: FlaskClient, contract: Contract
) -> None:
    response = client.get("/docs")
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    for method, path in contract.operations:
        operation = contract.document["paths"][path][method.lower()]
        assert f'<span class="method">{method}</span> <code>{path}</code>' in response.text
        assert f'id="{operation["operationId"]}"' in response.text
    for field in contract.document["components"]["schemas"]["SlurmOptions"]["properties"]:
        assert f"<code>{field}</code>" in response.text
    assert "curl -X POST" in response.text
    links = re.findall(r"""(?:href|src|action|url)\s*[=(]\s*["']?([^"')\s>]+)""", response.text)
    assert links
    assert all(link.startswith("#") or link == "openapi.json" for link in links)
    page = re.sub(r"<pre>.*?</pre>", "", response.text, flags=re.S).replace("URL", "")
    assert not re.search(r"<script|https?://(?!\(\?!)|//\w+\.\w+", page)


def test_the_page_names_the_words_of_events(client: FlaskClient) -> None:
    page = html.unescape(client.get("/docs").text)
    row = page[page.index("<code>events</code>") :].partition("</tr>")[0]
    for event in EventName:
        assert re.search(rf"\b{event}\b", row), event
    assert "pending_over" in row


@pytest.mark.parametrize(
    ("host", "prefix", "url"),
    [
        ("cluster.example.com", "", "http://cluster.example.com/submit"),
        ("cluster.example.com:8443", "/hpc", "http://cluster.example.com:8443/hpc/submit"),
        ("[::1]:5001", "", "'http://[::1]:5001/submit'"),
        ("$(id)", "", "http://localhost/submit"),
        ("a'b<", "", "http://localhost/submit"),
    ],
)
def test_the_examples_of_the_page_are_for_the_host_that_was_asked(
    client: FlaskClient, host: str, prefix: str, url: str
) -> None:
    environ = {"HTTP_HOST": host, "SCRIPT_NAME": prefix}
    page = html.unescape(client.get("/docs", environ_overrides=environ).text)
    assert re.search(rf"\' {re.escape(url)}</pre>", page)
    assert "127.0.0.1:5001" not in page


@pytest.mark.parametrize(("path", "link"), [("/docs", "openapi.json"), ("/docs/", "../openapi.json")])
def test_the_page_links_to_the_document(client: FlaskClient, path: str, link: str) -> None:
    assert f'<a href="{link}">' in client.get(path).text


def test_both_are_for_everybody_and_only_to_be_read(client: FlaskClient, contract: Contract) -> None:
    for path in ("/openapi.json", "/docs"):
        assert client.get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 200
        assert client.post(path).status_code == 405
        assert contract.document["paths"][path]["get"]["security"] == []
