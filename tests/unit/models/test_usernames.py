"""The user names of a site: the usual ones, those of TASK_USERNAME_PATTERN, and those that none may have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.environment import read_settings
from app.errors import SettingsError
from app.job_state import JobState
from app.models.caller import Grant, Scope
from app.models.username import is_username
from tests.support.access import Site
from tests.support.contract import Contract
from tests.support.fakes import FakeSlurm
from tests.support.real.identity_provider import IdentityProvider
from tests.support.tasks import make_task
from tests.support.web import post, prepared_app

PATTERN = "[A-Za-z0-9_][A-Za-z0-9_.@-]*"
OF_THE_SITE = ["Alice", "2nd", "a.doe@ad.example.com", "JDOE", "1a", "x" * 64]
NEVER = [
    *(
        "",
        ".",
        "..",
        "-x",
        "@x",
        "$x",
        "+0",
        "0",
        "00",
        "1000",
        "a b",
        "a\n",
        "\na",
        "a\0",
        "a/b",
        "a\\b",
        "a:b",
    ),
    *(
        "a,b",
        "a;b",
        "a%b",
        "a'b",
        'a"b',
        "a`b",
        "a(b",
        "a<b",
        "a&b",
        "a|b",
        "a*b",
        "a~",
        "a#",
        "ünal",
        "a\u2028",
    ),
    *("a\r\nX: y", "a=b", "a?b", "\uff21lice", "\u0661a", "x" * 256, "a\u0301"),
]


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def app(tmp_path: Path, slurm: FakeSlurm) -> Iterator[Flask]:
    with prepared_app(tmp_path / "store.sqlite3", slurm, TASK_USERNAME_PATTERN=PATTERN) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("name", OF_THE_SITE)
def test_name_of_the_sites_pattern_is_accepted_on_every_route(
    client: FlaskClient, slurm: FakeSlurm, name: str
) -> None:
    answer = post(client, "/submit", {"task": make_task(name, folder="/d", cwd="/d")})
    assert answer.status_code == 200, answer.text
    slurm.put(4711, JobState.RUNNING, username=name)
    watched = {"task": {"username": name, "uuid": "w"}, "slurm_job_id": 4711}
    assert post(client, "/monitor", {"monitor": watched}).status_code == 200
    assert client.get("/monitor/slurm_job_id/4711").status_code == 200


@pytest.mark.parametrize("name", [*NEVER, "a$b"])
def test_name_beyond_the_sites_pattern_is_refused_on_every_route(
    client: FlaskClient, slurm: FakeSlurm, name: str
) -> None:
    task = make_task("x", uuid="u") | {"username": name}
    answer = post(client, "/submit", {"task": task})
    assert answer.status_code == 400
    assert answer.json["details"][0].startswith("task.username: must "), name
    watched = {"task": {"username": name, "uuid": "w"}, "slurm_job_id": 4711}
    assert post(client, "/monitor", {"monitor": watched}).status_code == 400
    raw = client.post("/slurm/job/submit", query_string={"username": name}, json={"job": {}})
    assert raw.status_code == 400
    assert slurm.calls == []


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("pattern", [".*", r"[\s\S]*", "(?s).*"])
def test_no_pattern_allows_what_breaks_headers_paths_or_means_a_user_id(name: str, pattern: str) -> None:
    assert not is_username(name, pattern)


@pytest.mark.parametrize("name", [*NEVER, *OF_THE_SITE, "a$b", "a+b", "x" * 33])
def test_name_that_is_not_usual_is_refused_without_a_pattern(name: str) -> None:
    assert not is_username(name)


@pytest.mark.parametrize("name", ["alice", "_x", "a.b-c_9", "machine$", "x" * 32])
def test_usual_name_is_accepted_without_a_pattern(name: str) -> None:
    assert is_username(name)


@pytest.mark.parametrize("name", ["root", "Root", "ROOT", "root@ad.example.com", "slurm", "Slurm@files"])
def test_service_user_is_refused_in_capitals_and_with_a_domain(
    client: FlaskClient, slurm: FakeSlurm, name: str
) -> None:
    slurm.put(5, JobState.RUNNING, username=name)
    watched = {"monitor": {"task": {"username": name, "uuid": "w"}, "slurm_job_id": 5}}
    assert post(client, "/monitor", watched).status_code == 400
    answer = post(client, "/submit", {"task": make_task(name)})
    assert answer.json["details"] == [
        f"task.username: must not be {name}: this server runs no jobs as that user"
    ]


def test_document_has_the_sites_pattern(client: FlaskClient) -> None:
    document: Any = client.get("/openapi.json").json
    contract = Contract(document)
    schema = contract.request("POST", "/submit")
    watched = contract.request("POST", "/monitor")
    for name in [*OF_THE_SITE, *NEVER]:
        is_good = name in OF_THE_SITE
        assert schema.is_valid({"task": make_task("x") | {"username": name}}) is is_good, name
        body = {"monitor": {"task": {"username": name, "uuid": "w"}, "slurm_job_id": 5}}
        assert watched.is_valid(body) is is_good, name
    described = contract.document["components"]["schemas"]["Task"]["properties"]["username"]["description"]
    assert PATTERN in described
    assert "at most 32" not in described


def test_key_is_created_for_a_name_of_the_sites_pattern_only(app: Flask) -> None:
    run = app.test_cli_runner().invoke
    good = run(args=["keys", "create", "a", "--user", "J.Doe@ad.example.com"])
    assert good.exit_code == 0, good.output
    bad = run(args=["keys", "create", "b", "--user", "1000"])
    assert bad.exit_code == 2
    assert "--user 1000: must be a user name that matches [A-Za-z0-9_]" in bad.output


def test_claim_with_a_name_of_the_sites_pattern_acts_for_that_user(tmp_path: Path) -> None:
    with IdentityProvider() as provider:
        site = Site(tmp_path / "store.sqlite3", provider, TASK_USERNAME_PATTERN=PATTERN)
        name = "J.Doe@ad.example.com"
        answer = site.submit(provider.token(preferred_username=name), username=name)
        assert answer.status_code == 200, answer.text
        assert site.submit(provider.token(preferred_username="1000"), username="1000").status_code == 403
        site.services.store.close()


def test_stored_grant_is_read_whatever_the_pattern_is() -> None:
    grant = Grant(scopes=frozenset({Scope.READ}), users=("J.Doe@ad.example.com",))
    assert Grant.model_validate(grant.model_dump()) == grant


def test_pattern_that_is_no_regular_expression_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="TASK_USERNAME_PATTERN: must be a regular expression: "):
        read_settings({"TASK_USERNAME_PATTERN": "[a-"})


@pytest.mark.parametrize("pattern", ["([a-z]+)+", "(a|aa)+", "([a-z]+[.-]?)+@x", ".*.*.*.*.*Z"])
def test_pattern_that_a_name_could_occupy_for_hours_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(SettingsError, match="TASK_USERNAME_PATTERN: must not repeat a repetition"):
        read_settings({"TASK_USERNAME_PATTERN": pattern})


@pytest.mark.parametrize(
    "pattern", [PATTERN, ".*", r"[a-z]+(\.[a-z]+)*(@[a-z]+(\.[a-z]+)*)?", "[a-z]{2}[0-9]{3,}"]
)
def test_pattern_that_is_matched_at_once_is_accepted(pattern: str) -> None:
    assert pattern == read_settings({"TASK_USERNAME_PATTERN": pattern}).TASK_USERNAME_PATTERN
