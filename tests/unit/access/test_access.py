"""Who may call what, for whom, and how often."""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import pwd
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.access import audit
from app.access.failed_attempts import FailedAttempts
from app.access.keys import ApiKeys
from app.access.oidc import OidcAuthenticator
from app.environment import read_settings
from app.errors import (
    Forbidden,
    IdentityProviderUnavailable,
    InvalidRequest,
    NotAuthenticated,
    SettingsError,
    SlurmUnavailable,
    StoreUnavailable,
)
from app.job_state import JobState
from app.lifecycle.submit import _stored_key
from app.logs import configure_logging
from app.models.caller import ORDINARY_SCOPES, Caller, ClaimGrant, Grant, Scope
from app.models.record import utc_now
from app.models.refused_users import RefusedUsers
from app.models.task import Task
from app.services import build_services
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from tests.conftest import until
from tests.support.answers import body_of
from tests.support.contract import Contract
from tests.support.fakes import FakeSlurm
from tests.support.real.http_services import Answer, Request
from tests.support.real.identity_provider import AUDIENCE, IdentityProvider
from tests.support.real.network import Fault, Network
from tests.support.real.processes import free_port
from tests.support.service import ROOT
from tests.support.tasks import make_task, new_uuid

KEY = "c2VjcmV0IGtleSBmb3IgdGVzdHM="
ALICE = Grant(scopes=ORDINARY_SCOPES, users=("alice",))


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider() as provider:
        yield provider


class Site:
    """A server that asks for proof, in front of a cluster in memory; its answers keep to its document."""

    def __init__(self, path: Path, provider: IdentityProvider | None = None, **settings: Any) -> None:
        self.slurm: Any = FakeSlurm()
        self._path = path
        self._settings = {"ACCESS_METHODS": "keys", **(_oidc(provider) if provider else {}), **settings}
        self.app = self.another()
        self.services = self.app.extensions["slurm_proxy"]
        self.client = self.app.test_client()
        self.contract = Contract(self.client.get("/openapi.json").json or {})
        self.keys: ApiKeys = self.services.keys

    def another(self) -> Flask:
        """Another process with the same store."""
        config = {
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": KEY,
            "MONGODB_URI": None,
            "SQLITE_PATH": self._path,
            "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
            **self._settings,
        }
        app = create_app(config)
        app.extensions["slurm_proxy"].store.close()
        app.extensions["slurm_proxy"] = build_services(read_settings(config), self.slurm)
        app.extensions["slurm_proxy"].store.prepare()
        return app

    def key(self, grant: Grant = ALICE, lasts: timedelta | None = None) -> str:
        return self.keys.create(f"key-{new_uuid()}", grant, lasts)[0]

    def call(self, method: str, path: str, proof: str | None = None, body: Any = None, **headers: str) -> Any:
        if proof is not None:
            headers["Authorization"] = f"Bearer {proof}"
        data = json.dumps(body) if body is not None else None
        answer = self.client.open(path, method=method, data=data, headers=headers)
        self.contract.check(method, path.partition("?")[0], answer)
        return answer

    def submit(self, proof: str | None = None, **fields: Any) -> Any:
        return self.call("POST", "/submit", proof, {"task": make_task(**fields)})


def _oidc(provider: IdentityProvider) -> dict[str, Any]:
    return {
        "ACCESS_METHODS": "keys,oidc",
        "OIDC_ISSUER": provider.issuer,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_JWKS_URL": f"{provider.url}/keys",
        "OIDC_USER_CLAIM": "preferred_username",
        "OIDC_GRANTS": [
            {"claim": "groups", "value": "operators", "grant": {"scopes": ["admin"], "users": "any"}}
        ],
    }


@pytest.fixture
def site(tmp_path: Path, provider: IdentityProvider) -> Iterator[Site]:
    site = Site(tmp_path / "store.sqlite3", provider)
    yield site
    site.services.store.close()


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def new(**settings: Any) -> Site:
        made.append(Site(tmp_path / "store.sqlite3", **settings))
        return made[-1]

    yield new
    for site in made:
        site.services.store.close()


# --- every route, by everybody --------------------------------------------------------------------

# The columns: what is asked for, always about a job of alice's.
ROUTES = (
    "submit",
    "watch",
    "by_job_id",
    "by_uuid",
    "cancel",
    "cancel_job",
    "by_state",
    "notifications",
    "retry",
    "retry_all",
    "slurm_ping",
    "slurm_diag",
    "slurm_jobs",
    "slurm_job",
    "slurm_submit",
    "ping",
    "openapi",
    "docs",
    "no_route",
    "wrong_method",
)
NOBODY = "401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 200 200 200 404 405"
# 404 for a retry: there is no such notification, which only an operator learns.
EXPECTED = {
    "no key": NOBODY,
    "no bearer": NOBODY,
    "a wrong key": NOBODY,
    "half a key": NOBODY,
    "an expired key": NOBODY,
    "a revoked key": NOBODY,
    "another user's": "403 403 400 400 404 404 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "a reader": "403 403 200 200 403 403 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "a submitter": "200 400 403 403 403 403 403 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "a canceller": "403 403 403 403 200 200 403 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "all for alice": "200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "all for any": "200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "an operator": "403 403 403 403 403 403 403 200 404 200 200 200 200 200 200 200 200 200 404 405",
    "a good token": "200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "an operator's token": "200 200 200 200 200 200 200 200 404 200 200 200 200 200 200 200 200 200 404 405",
    "a token for bob": "403 403 400 400 404 404 200 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "a token for no user": "403 403 403 403 403 403 403 403 403 403 403 403 403 403 403 200 200 200 404 405",
    "another audience": NOBODY,
    "another issuer": NOBODY,
    "a forged algorithm": NOBODY,
    "an algorithm that is not taken": NOBODY,
    "no signature": NOBODY,
    "an expired token": NOBODY,
    "a token of the future": NOBODY,
    "a token without an end": NOBODY,
    "an unknown key": NOBODY,
    "an altered token": NOBODY,
}
CODES = {400: "unknown_", 401: "not_authenticated", 403: "forbidden", 405: "method_not_allowed"}


def proof(site: Site, provider: IdentityProvider, who: str) -> str | None:
    def key(*scopes: Scope, users: Any = ("alice",), lasts: timedelta | None = None) -> str:
        return site.key(Grant(scopes=frozenset(scopes or ORDINARY_SCOPES), users=users), lasts)

    now = int(time.time())
    match who:
        case "no key" | "no bearer":
            return None
        case "a wrong key":
            return key()[:-4] + "AAAA"
        case "half a key":
            return "sp_"
        case "an expired key":
            expired = key(lasts=timedelta(milliseconds=1))
            time.sleep(0.005)
            return expired
        case "a revoked key":
            revoked = key()
            assert site.keys.revoke(revoked.split("_")[1])
            return revoked
        case "another user's":
            return key(users=("bob",))
        case "a reader":
            return key(Scope.READ)
        case "a submitter":
            return key(Scope.SUBMIT)
        case "a canceller":
            return key(Scope.CANCEL)
        case "all for alice":
            return key()
        case "all for any":
            return key(users="any")
        case "an operator":
            return key(Scope.ADMIN, users="any")
        case "a good token":
            return provider.token()
        case "an operator's token":
            return provider.token(groups=["staff", "operators"])
        case "a token for bob":
            return provider.token(preferred_username="bob")
        case "a token for no user":
            return provider.token(preferred_username=None)
        case "another audience":
            return provider.token(aud="another-service")
        case "another issuer":
            return provider.token(iss="https://elsewhere.example")
        case "a forged algorithm":
            return provider.forged()
        case "an algorithm that is not taken":
            return provider.token(algorithm="RS512")
        case "no signature":
            return provider.unsigned()
        case "an expired token":
            return provider.token(iat=now - 900, exp=now - 300)
        case "a token of the future":
            return provider.token(nbf=now + 300)
        case "a token without an end":
            return provider.token(exp=None)
        case "an unknown key":
            stranger = IdentityProvider()
            stranger.rotate("a stranger's")
            stranger.issuer = provider.issuer
            return stranger.token()
        case "an altered token":
            head, _, signature = provider.token().split(".")
            body = provider.token(preferred_username="root").split(".")[1]
            return f"{head}.{body}.{signature}"
    raise AssertionError(who)


def call_of(site: Site, route: str, given: str | None, **headers: str) -> Any:
    """One request about a job of alice's."""
    task = make_task()
    job_id = site.services.submitter.submit(Caller("test", (ALICE,)), {"task": task}).slurm_job_id
    elsewhere = site.slurm.put(900_000 + job_id, JobState.RUNNING).job_id
    watched = {"monitor": {"task": {"username": "alice", "uuid": new_uuid()}, "slurm_job_id": elsewhere}}
    calls: dict[str, tuple[str, str, Any]] = {
        "submit": ("POST", "/submit", {"task": make_task()}),
        "watch": ("POST", "/monitor", watched),
        "by_job_id": ("GET", f"/monitor/slurm_job_id/{job_id}", None),
        "by_uuid": ("GET", f"/monitor/task_uuid/{task['uuid']}", None),
        "cancel": ("POST", f"/monitor/task_uuid/{task['uuid']}/cancel", None),
        "cancel_job": ("DELETE", f"/monitor/slurm_job_id/{job_id}", None),
        "by_state": ("GET", "/monitor/slurm_job_state/PENDING", None),
        "notifications": ("GET", "/notifications", None),
        "retry": ("POST", "/notifications/none/retry", None),
        "retry_all": ("POST", "/notifications/retry", None),
        "slurm_ping": ("GET", "/slurm/ping", None),
        "slurm_diag": ("GET", "/slurm/diag", None),
        "slurm_jobs": ("GET", "/slurm/jobs/0", None),
        "slurm_job": ("GET", f"/slurm/job/{job_id}", None),
        "slurm_submit": ("POST", "/slurm/job/submit?username=alice", {"script": "#!/bin/sh"}),
        "ping": ("GET", "/ping", None),
        "openapi": ("GET", "/openapi.json", None),
        "docs": ("GET", "/docs", None),
        "no_route": ("GET", "/admin", None),
        "wrong_method": ("PUT", "/submit", None),
    }
    method, path, body = calls[route]
    return site.call(method, path, given, body, **headers)


@pytest.mark.parametrize("who", EXPECTED)
def test_every_route_by_everybody(site: Site, provider: IdentityProvider, who: str) -> None:
    given = proof(site, provider, who)
    headers = {"Authorization": f"Basic {site.key()}"} if who == "no bearer" else {}
    for route, expected in zip(ROUTES, EXPECTED[who].split(), strict=True):
        before = len(site.slurm.submitted)
        answer = call_of(site, route, given, **headers)
        assert answer.status_code == int(expected), (route, answer.text)
        if code := CODES.get(answer.status_code):
            assert answer.json["code"].startswith(code), (route, answer.text)
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert len(site.slurm.submitted) == before + 1 + (route == "submit" and answer.status_code == 200)


def test_the_matrix_has_every_route(site: Site) -> None:
    """Each rule of the application stands in a column."""
    assert {rule.rule.split("/<")[0] for rule in site.app.url_map.iter_rules()} == {
        "/ping",
        "/openapi.json",
        "/docs",
        "/submit",
        "/monitor",
        "/monitor/slurm_job_id",
        "/monitor/slurm_job_state",
        "/monitor/task_uuid",
        "/notifications",
        "/notifications/retry",
        "/slurm/ping",
        "/slurm/diag",
        "/slurm/jobs",
        "/slurm/job",
        "/slurm/job/submit",
    }


@pytest.mark.parametrize("users", [("alice",), "any"])
def test_a_list_of_records_holds_those_of_the_callers_users_alone(site: Site, users: Any) -> None:
    everybody = site.key(Grant(scopes=ORDINARY_SCOPES, users="any"))
    for username in ("alice", "bob"):
        assert site.submit(everybody, username=username).status_code == 200
    given = site.key(Grant(scopes=frozenset({Scope.READ}), users=users))
    listed = site.call("GET", "/monitor/slurm_job_state/PENDING", given).json["monitor"]
    expected = ["bob", "alice"] if users == "any" else ["alice"]
    assert [record["slurm_username"] for record in listed] == expected


# --- for whom -------------------------------------------------------------------------------------


def test_anothers_job_is_told_of_like_one_that_there_is_not(site: Site) -> None:
    task = make_task()
    job_id = site.submit(site.key(), uuid=task["uuid"]).json["slurm_job_id"]
    bobs = site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",)))
    for there, not_there in (
        (f"slurm_job_id/{job_id}", "slurm_job_id/77"),
        (f"task_uuid/{task['uuid']}", "task_uuid/x"),
    ):
        answers = [site.call("GET", f"/monitor/{path}", bobs).json for path in (there, not_there)]
        shown, unknown = (json.dumps(answer) for answer in answers)
        assert shown.replace(there.split("/")[1], "?") == unknown.replace(not_there.split("/")[1], "?")
    site.slurm.put(5, JobState.RUNNING, username="alice")
    body = {"monitor": {"task": {"username": "bob", "uuid": "b"}, "slurm_job_id": 5}}
    assert site.call("POST", "/monitor", bobs, body).json["code"] == "unknown_job"
    taken = site.submit(bobs, username="bob", uuid=task["uuid"])
    assert (taken.json["code"], taken.json["slurm_job_id"]) == ("duplicate_uuid", None)
    assert str(job_id) not in taken.text


@pytest.mark.parametrize(
    ("slurm", "fault"),
    [
        (
            {"partition": "*", "account": "physics"},
            "task.slurm.partition: must be set to one or more of short, long",
        ),
        ({"partition": "long", "account": "physics"}, None),
        ({"partition": "short,long", "account": "physics"}, None),
        (
            {"partition": "gpu", "account": "physics"},
            "task.slurm.partition: must be set to one or more of short, long",
        ),
        (
            {"partition": "long,gpu", "account": "physics"},
            "task.slurm.partition: must be set to one or more of short, long",
        ),
        ({"account": "physics"}, "task.slurm.partition: must be set to one or more of short, long"),
        (
            {"partition": "long", "account": "art"},
            "task.slurm.account: must be set to one or more of physics",
        ),
        ({"partition": "long"}, "task.slurm.account: must be set to one or more of physics"),
    ],
)
def test_partitions_and_accounts(site: Site, slurm: dict[str, str], fault: str | None) -> None:
    grant = ALICE.model_copy(update={"partitions": ("short", "long"), "accounts": ("physics",)})
    answer = site.submit(site.key(grant), slurm=slurm)
    assert answer.status_code == (403 if fault else 200)
    assert answer.json.get("error") == fault


@pytest.mark.parametrize(
    ("recipient", "status"),
    [
        ("ann@example.org", 200),
        ("Ann <ANN@EXAMPLE.ORG>", 200),
        (["ann@example.org", "ben@example.org"], 200),
        (["ann@example.org", "eve@example.net"], 403),
        ("eve@example.net", 403),
        ("ann@example.org.evil.net", 403),
        ("x%evil.net@example.org", 400),
        ("evil.net!x@example.org", 400),
    ],
)
def test_recipients(site: Site, recipient: Any, status: int) -> None:
    grant = ALICE.model_copy(update={"recipients": ("email:*@example.org",)})
    email = {"sender": "cluster@example.com", "recipient": recipient}
    answer = site.submit(site.key(grant), notification={"methods": ["email"], "params": {"email": email}})
    assert answer.status_code == status
    if status == 403:
        assert answer.json["error"].startswith("task.notification.params.email: ")
        assert site.slurm.submitted == []


@pytest.mark.parametrize(
    ("pattern", "method", "params", "status"),
    [
        ("rabbitmq: chem", "rabbitmq", {"queue": "chem"}, 200),
        ("rabbitmq: chem", "rabbitmq", {"routing_key": "chem"}, 200),
        ("rabbitmq: chem", "rabbitmq", {"queue": "payroll"}, 403),
        ("rabbitmq: chem", "rabbitmq", {"queue": "chem", "routing_key": "payroll"}, 403),
        ("webhook:https://h.example/chem/*", "webhook", {"url": "https://h.example/chem/a"}, 200),
        ("webhook:https://h.example/chem/*", "webhook", {"url": "https://h.example/bio/a"}, 403),
        ("email:*@example.org", "test", {}, 403),
    ],
)
def test_what_a_message_really_goes_to_is_held_against_the_grant(
    new_site: Callable[..., Site], pattern: str, method: str, params: dict[str, str], status: int
) -> None:
    site = new_site(
        NOTIFICATIONS_RABBITMQ_HOST="mq.example",
        NOTIFICATIONS_WEBHOOK_RECEIVERS={"h.example": "c2VjcmV0IGtleSBmb3IgdGVzdHMgYW5kIG1vcmU="},
    )
    key = site.key(ALICE.model_copy(update={"recipients": (pattern,)}))
    answer = site.submit(key, notification={"methods": [method], "params": {method: params}})
    assert answer.status_code == status, answer.text


EVENTS = {"exchange": "events", "routing_key": "job.end"}


@pytest.mark.parametrize(
    ("pattern", "params", "is_granted"),
    [
        ("events job.*", EVENTS, True),
        ("events job.*", {**EVENTS, "routing_key": "job.end now"}, True),
        ("events job.?nd", {**EVENTS, "routing_key": "job. nd"}, True),
        ("events job.*", {**EVENTS, "routing_key": "payroll"}, False),
        ("events job.*", {"exchange": "events job.end", "routing_key": "payroll"}, False),
        ("events job.*", {"routing_key": "events job.end"}, False),
        ("* job.*", {"exchange": "payroll job.", "routing_key": "x"}, False),
        # The queue is declared and bound: it receives, too.
        ("events job.*", {**EVENTS, "queue": "payroll"}, False),
        ("events job.*", {**EVENTS, "queue": "job.end"}, False),
        ("events job.*", {"exchange": "events", "queue": "job.end"}, False),
        ("events *", {**EVENTS, "queue": "payroll"}, False),
        ("events *", {**EVENTS, "queue": "payroll", "passive": True}, False),
        ("events job.* jobs", {**EVENTS, "queue": "jobs"}, True),
        ("events job.* jobs", {**EVENTS, "queue": "jobs of mine"}, False),
        ("events job.* jobs", {**EVENTS, "queue": "payroll"}, False),
        ("events job.* jobs", {**EVENTS, "routing_key": "payroll", "queue": "jobs"}, False),
        ("events job.* jobs", {"exchange": "events", "routing_key": "job.x jobs"}, False),
        ("events jobs jobs", {"exchange": "events", "queue": "jobs"}, True),
        (" jobs", {"queue": "jobs"}, True),
        (" jobs", {"queue": "jobs", "routing_key": "jobs"}, True),
        (" *", {"queue": "jobs", "routing_key": "payroll"}, False),
        (" *", {"exchange": "events", "queue": "jobs"}, False),
        (" payroll jobs", {"queue": "jobs", "routing_key": "payroll"}, True),
        ("events ", {"exchange": "events"}, True),
        ("jobs", {"queue": "jobs"}, False),
        ("*", {**EVENTS, "queue": "payroll"}, True),
        ("* *", {"exchange": "any", "routing_key": "any"}, True),
    ],
)
def test_a_grant_on_rabbitmq_covers_exchange_key_and_queue_each_by_its_own_part(
    new_site: Callable[..., Site], pattern: str, params: dict[str, Any], is_granted: bool
) -> None:
    assert is_allowed(new_site(), f"rabbitmq:{pattern}", "rabbitmq", params) is is_granted


def is_allowed(site: Site, pattern: str, method: str, params: dict[str, Any]) -> bool:
    """Return whether a key with that grant may submit a task with these parameters."""
    key = site.key(ALICE.model_copy(update={"recipients": (pattern,)}))
    answer = site.submit(key, notification={"methods": [method], "params": {method: params}})
    assert answer.status_code in (200, 403), answer.text
    return bool(answer.status_code == 200)


@pytest.mark.parametrize(
    ("pattern", "url", "is_granted"),
    [
        ("https://h.example/chem/*", "https://h.example/chem/a/b", True),
        ("https://h.example/chem/*", "HTTPS://H.example/chem/a?x=y", True),
        ("https://H.example/chem/*", "https://h.example/chem/", True),
        ("https://h.example/chem/*", "https://h.example/chem", False),
        ("https://h.example/chem/*", "http://h.example/chem/a", False),
        ("https://h.example/chem/*", "https://h.example:8443/chem/a", False),
        ("https://h.example/chem/*", "https://h.example/bio?/chem/a", False),
        ("https://h.example/chem/*", "https://h.example/bio#/chem/a", False),
        ("https://*.example/chem/*", "https://h.example/chem/a", True),
        ("https://*.example/chem/*", "https://evil.net/x.example/chem/a", False),
        ("https://*.example/chem/*", "https://evil.net?x.example/chem/a", False),
        ("https://h.example/*/jobs", "https://h.example/chem/jobs", True),
        ("https://h.example/*/jobs", "https://h.example/admin?x=/jobs", False),
        ("https://h.example/jobs", "https://h.example/jobs?as=admin", False),
        ("https://h.example/jobs?team=chem", "https://h.example/jobs?team=chem", True),
        ("https://h.example/jobs?team=*", "https://h.example/jobs?team=bio", True),
        ("https://h.example/jobs?team=*", "https://h.example/admin?jobs?team=bio", False),
        ("https://h.example", "https://h.example", True),
        ("https://h.example/", "https://h.example", True),
        ("https://h.example", "https://h.example/chem", False),
        ("*://h.example/*", "http://h.example/chem", True),
        ("h.example/*", "https://h.example/chem", False),
        ("*", "https://h.example/chem", True),
    ],
)
def test_a_grant_on_a_webhook_covers_host_path_and_query_each_by_its_own_part(
    new_site: Callable[..., Site], pattern: str, url: str, is_granted: bool
) -> None:
    assert is_allowed(new_site(), f"webhook:{pattern}", "webhook", {"url": url}) is is_granted


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("pattern", "params", "is_granted"),
    [
        ("*@example.org", {}, True),
        ("*@Example.ORG", {"recipient": "ANN@example.org"}, True),
        ("a*@example.org", {"recipient": "bob@example.org"}, False),
        ("*", {"recipient": "eve@evil.net"}, True),
        ("*example.org", {}, False),  # would be ann@notexample.org, too
        ("ann*org", {"recipient": "ann@evil.org"}, False),
        ("*@example.org", {"reply_to": "Ben <BEN@example.org>"}, True),
        ("*@example.org", {"reply_to": "eve@evil.net"}, False),
        ("*@example.org", {"reply_to": '"ann@example.org" <eve@evil.net>'}, False),
    ],
)
def test_a_grant_on_mail_covers_recipients_and_where_answers_go(
    new_site: Callable[..., Site], method: str, pattern: str, params: dict[str, str], is_granted: bool
) -> None:
    mail = {"sender": "cluster@example.com", "recipient": "ann@example.org", **params}
    assert is_allowed(new_site(), f"{method}:{pattern}", method, mail) is is_granted


@pytest.mark.parametrize(
    ("pattern", "method", "params", "is_granted"),
    [
        ("slack:#chem-*", "slack", {"channel": "#chem-jobs"}, True),
        ("slack:#chem-*", "slack", {"channel": "#payroll"}, False),
        ("apprise:chem*", "apprise", {"target": "chem"}, True),
        ("apprise:chem*", "apprise", {"target": "bio"}, False),
        ("test:", "test", {}, True),
        ("*mail:*@example.org", "gmail", {"sender": "a@b.example", "recipient": "x@example.org"}, True),
        # The pattern's method ends at the first colon, and its `*` does not go beyond.
        ("w*k:https://h.example/*", "webhook", {"url": "https://h.example/a"}, True),
        ("w*://h.example/*", "webhook", {"url": "https://h.example/a"}, False),
    ],
)
def test_a_grant_covers_a_method_and_a_receiver_each_by_its_own_part(
    new_site: Callable[..., Site], pattern: str, method: str, params: dict[str, str], is_granted: bool
) -> None:
    assert is_allowed(new_site(), pattern, method, params) is is_granted


def test_one_grant_must_allow_the_whole_task() -> None:
    """Grants of a token add up, but not to more than each of them."""
    caller = Caller(
        "both",
        (
            ALICE.model_copy(update={"partitions": ("short",), "accounts": None}),
            Grant(scopes=ORDINARY_SCOPES, users=("bob",)),
        ),
    )
    assert caller.is_allowed(Scope.SUBMIT, "bob")
    assert not caller.is_allowed(Scope.ADMIN)
    assert not caller.is_allowed(Scope.SUBMIT, "carol")
    assert [grant.users for grant in caller.find_grants(Scope.SUBMIT, "alice")] == [("alice",)]


def test_a_unix_group_stands_for_its_members() -> None:
    grant = Grant(scopes=ORDINARY_SCOPES, groups=("daemon",))
    assert grant.covers_user("daemon")
    assert not grant.covers_user("games")
    assert not grant.covers_user("nobody-knows-me")


@pytest.mark.parametrize("username", ["root", "slurm"])
def test_nobody_runs_as_a_service_user(site: Site, username: str) -> None:
    calls: tuple[tuple[Scope, Callable[[str], Any]], ...] = (
        (Scope.SUBMIT, lambda key: site.submit(key, username=username)),
        (Scope.ADMIN, lambda key: site.call("POST", f"/slurm/job/submit?username={username}", key, {})),
    )
    for scope, call in calls:
        answer = call(site.key(Grant(scopes=frozenset({scope}), users="any")))
        assert answer.status_code == 400
        assert f"username: must not be {username}" in answer.json["error"]


@pytest.mark.parametrize("username", ["root", "slurm", "poller"])
def test_no_job_of_a_service_user_is_registered(new_site: Callable[..., Site], username: str) -> None:
    site = new_site(SLURM_REST_USERNAME="poller")
    site.slurm.put(5, JobState.RUNNING, username=username)
    body = {"monitor": {"task": {"username": username, "uuid": new_uuid()}, "slurm_job_id": 5}}
    answer = site.call("POST", "/monitor", site.key(Grant(scopes=ORDINARY_SCOPES, users="any")), body)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["error"].startswith(f"monitor.task.username: must not be {username}")


@pytest.mark.parametrize("username", ["root", "slurm", "poller"])
@pytest.mark.parametrize("route", ["POST /monitor/task_uuid/{}/cancel", "DELETE /monitor/slurm_job_id/{}"])
def test_no_job_of_a_service_user_is_cancelled(
    new_site: Callable[..., Site], username: str, route: str
) -> None:
    """Such a record is the older server's, or of a time when the operator allowed the user."""
    then = new_site(SLURM_REST_USERNAME="poller", TASK_ALLOWED_SERVICE_USERS=username)
    task = make_task(username)
    key = then.key(Grant(scopes=ORDINARY_SCOPES, users="any"))
    job_id = then.call("POST", "/submit", key, {"task": task}).json["slurm_job_id"]
    now = new_site(SLURM_REST_USERNAME="poller")
    now.slurm.jobs.update(then.slurm.jobs)
    method, path = route.format(task["uuid"] if "uuid" in route else job_id).split()
    answer = now.call(method, path, key)
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    assert f"this server does nothing as {username}" in answer.json["error"]
    assert now.slurm.jobs[job_id].job_state is JobState.PENDING
    assert now.call("GET", f"/monitor/task_uuid/{task['uuid']}", key).status_code == 200
    assert then.call(method, path, key).status_code == 200, "where the operator allows it"


def test_a_name_that_slurm_takes_for_roots_user_id_is_refused() -> None:
    refused = RefusedUsers({"root", "slurm"})
    assert all(
        name in refused for name in ("root", "ROOT", "Slurm", "root@a.example", "0", "00", "4294967294")
    )
    assert not any(name in refused for name in ("alice", "root2", "a0", "a@root"))


def test_no_token_is_made_for_a_refused_user() -> None:
    made: list[str] = []

    class Recorder(TokenMint):
        def make_headers(self, username: str, expires: Any = None) -> dict[str, str]:
            made.append(username)
            return super().make_headers(username, expires)

    connection = Connection("http://127.0.0.1:9", Recorder(b"k" * 32, 300), connect_timeout=1, read_timeout=1)
    client = SlurmClient(Session(connection, "slurm", RefusedUsers({"root", "slurm"})))
    task = Task.model_validate(make_task("root"))
    for call in (
        lambda: client.cancel(5, "root"),
        lambda: client.cancel(5, "slurm"),
        lambda: client.send_raw("POST", "job/submit", user="root", json={}),
    ):
        with pytest.raises(Forbidden, match="this server does nothing as"):
            call()
    with pytest.raises(SlurmUnavailable):  # slurmrestd's version is asked for first
        client.submit(task, "true", "tag", utc_now())
    assert set(made) <= {"slurm"}, "for the service itself"
    client.close()


def test_a_watched_task_does_not_tell_of_anothers_either(site: Site) -> None:
    task = make_task()
    job_id = site.submit(site.key(), uuid=task["uuid"]).json["slurm_job_id"]
    site.slurm.put(5, JobState.RUNNING, username="bob")
    bobs = site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",)))
    body = {"monitor": {"task": {"username": "bob", "uuid": task["uuid"]}, "slurm_job_id": 5}}
    answer = site.call("POST", "/monitor", bobs, body)
    assert (answer.json["code"], answer.json["slurm_job_id"]) == ("duplicate_uuid", None)
    assert str(job_id) not in answer.text


def test_idempotency_keys_are_each_callers_own(site: Site) -> None:
    alice, bob = site.key(), site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",)))
    key = {"Idempotency-Key": "nightly"}
    task = make_task()
    first = site.call("POST", "/submit", alice, {"task": task}, **key)
    assert site.call("POST", "/submit", bob, {"task": make_task("bob")}, **key).status_code == 200
    assert site.call("POST", "/submit", alice, {"task": task}, **key).json == first.json
    assert len(site.slurm.submitted) == 2


def test_idempotency_keys_of_callers_whose_names_hold_blanks_are_their_own(site: Site) -> None:
    """The one is called "ci", the other "ci x"; both would be "ci x y" with their keys."""
    grant = Grant(scopes=ORDINARY_SCOPES, users="any")
    bodies = [{"task": make_task()}, {"task": make_task()}]
    for caller, key, body in (("ci", "x y", bodies[0]), ("ci x", "y", bodies[1])):
        answer = body_of(site.services.submitter.submit(Caller(caller, (grant,)), body, key))
        assert answer["uuid"] == body["task"]["uuid"]
    assert len(site.slurm.submitted) == 2
    names = ("a", "a b", "a%20b", "a ", "%", "%25")
    stored = {_stored_key(name, key) for name in names for key in ("c", "b c", "20b c", " ")}
    assert len(stored) == 6 * 4
    assert _stored_key("key:ci:1f0c", "nightly") == "key:ci:1f0c nightly", "as before"


# --- keys -----------------------------------------------------------------------------------------


def test_only_the_hash_of_a_key_is_kept(site: Site, tmp_path: Path) -> None:
    key = site.key()
    assert site.submit(key).status_code == 200
    site.services.store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite3*"))
    assert key.encode() not in kept
    assert key.split("_", 2)[2].encode() not in kept
    assert hashlib.sha256(key.encode()).hexdigest().encode() in kept


def test_a_revoked_key_is_refused_at_once_by_every_process(site: Site) -> None:
    key, other = site.key(), site.another()
    headers = {"Authorization": f"Bearer {key}"}
    path = "/monitor/task_uuid/none"
    assert other.test_client().get(path, headers=headers).status_code == 400
    assert site.keys.revoke(key.split("_")[1])
    assert other.test_client().get(path, headers=headers).status_code == 401
    other.extensions["slurm_proxy"].store.close()


def test_keys_are_compared_in_constant_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def noting(one: str, other: str) -> bool:
        compared.append(len(one))
        return compare(one, other)

    monkeypatch.setattr("app.access.keys.hmac.compare_digest", noting)
    for text in (site.key(), site.key()[:-3] + "zzz", "sp_unknown_secret", "sp_", "sp__"):
        site.call("GET", "/monitor/task_uuid/none", text)
    assert compared == [64] * 5, "one comparison of two hashes, whether there is such a key or not"


def test_the_last_use_of_a_key_is_kept(site: Site) -> None:
    key = site.key()
    assert site.keys.list_all()[-1].last_used_at is None
    before = utc_now()
    site.submit(key)
    used = site.keys.list_all()[-1].last_used_at
    assert used is not None
    assert before <= used <= utc_now()


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 101])
def test_a_key_has_a_decent_name(site: Site, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name: must be one line"):
        site.keys.create(name, ALICE, None)


def test_a_name_is_used_once_until_its_key_is_over(site: Site) -> None:
    _, key = site.keys.create("ci", ALICE, None)
    with pytest.raises(InvalidRequest, match="there is a key called ci already"):
        site.keys.create("ci", ALICE, None)
    site.keys.revoke(key.id)
    site.keys.create("ci", ALICE, None)


def test_the_command_line_makes_lists_and_revokes_keys(site: Site) -> None:
    runner = site.app.test_cli_runner()

    def run(*arguments: str) -> Any:
        return runner.invoke(args=["keys", *arguments])

    made = run(
        "create", "pipeline", "--user", "alice", "--scope", "submit", "--days", "30", "--partition", "short"
    )
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert site.submit(key, slurm={"partition": "short"}).status_code == 200
    assert site.submit(key, slurm={"partition": "long"}).status_code == 403
    listed = run("list").output
    for word in (key.split("_")[1], "pipeline", "submit for alice; partitions short"):
        assert word in listed
    assert key not in listed
    assert run("revoke", key.split("_")[1]).exit_code == 0
    assert site.submit(key).status_code == 401
    again = run("revoke", key.split("_")[1])
    assert again.exit_code == 1
    assert f"the key {key.split('_')[1]} is revoked already" in again.output
    assert "does not exist: give an ID that `keys list` shows" in run("revoke", "pipeline").output


def test_the_command_line_says_in_a_line_which_setting_is_wrong(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "flask", "--app", "app", "keys", "list"]
    environment = {"PATH": "/bin", "ACCESS_METHODS": "keys", "SQLITE_PATH": str(tmp_path / "store")}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: SLURM_REST_HOST must be set")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "name the users that the key may act for: give --user, --group or --any-user"),
        (["x", "--scope", "admin"], "the scope admin is for all users: it needs --any-user"),
        (["x", "--any-user", "--user", "alice"], "--any-user excludes --user and --group: give one of them"),
        (["x", "--user", "any"], "give --any-user for all users"),
        (["x", "--any-user", "--days", "1e300"], "--days"),
        (["x", "--any-user", "--days", "nan"], "--days"),
        (["x", "--any-user", "--days", "1e10"], "--days"),
        (["x", "--any-user", "--days", "5000000"], "is not in the range 1<=x<=36500"),
        (["x", "--user", "alice", "--user", "root"], "--user root: this user is refused unless"),
        (["x", "--user", "slurm"], "--user slurm: this user is refused unless"),
        (
            ["x", "--user", "Not A User"],
            "--user Not A User: must be a user name, a string of at most 32 of a-z",
        ),
        (["x", "--any-user", "--scope", "everything"], "'everything' is not one of"),
        (["x", "--any-user", "--days", "0"], "--days"),
        (["two\nlines", "--any-user"], "name: must be one line"),
        (["x", "--user", "alice", "--scope", "admin"], "the scope admin is for all users"),
        (["x", "--any-user", "--scope", "admin", "--partition", "short"], "the scope admin is for all users"),
        (
            ["x", "--any-user", "--recipient", "*@example.org"],
            "--recipient: must be patterns of method:receiver",
        ),
        (
            ["x", "--any-user", "--recipient", "emial:*"],
            "--recipient: there is no method emial: it must be of email, gmail, slack",
        ),
        (
            ["x", "--any-user", "--recipient", "email:*example.com"],
            "--recipient: email:*example.com fits no receiver of email: what follows the colon must be an"
            " address with an @, such as *@example.com",
        ),
        (
            ["x", "--any-user", "--recipient", "rabbitmq:jobs"],
            "--recipient: rabbitmq:jobs fits no receiver of rabbitmq: what follows the colon must be",
        ),
        (
            ["x", "--any-user", "--recipient", "webhook:h.example/jobs"],
            "--recipient: webhook:h.example/jobs fits no receiver of webhook: what follows the colon must be",
        ),
    ],
)
def test_the_command_line_says_what_is_wrong(site: Site, arguments: list[str], words: str) -> None:
    result = site.app.test_cli_runner().invoke(args=["keys", "create", *arguments])
    assert result.exit_code != 0
    assert words in result.output
    assert site.keys.list_all() == []


def test_the_command_line_warns_of_names_that_are_of_no_use(site: Site) -> None:
    """Such a key is made all the same: the users may be on their way."""
    names = ["--user", "daemon", "--user", "no-such-user", "--group", "no-such-group"]
    made = site.app.test_cli_runner().invoke(
        args=["keys", "create", "x", *names, "--recipient", "*mail:*@a.b"]
    )
    assert made.exit_code == 0, made.output
    assert site.keys.authenticate(made.stdout.strip()).name.startswith("key:x:")
    assert made.stderr.splitlines()[:-1] == [
        "Warning: this machine has no user no-such-user",
        "Warning: this machine has no group no-such-group, and so none of its members",
    ]


# --- tokens ---------------------------------------------------------------------------------------


def test_a_new_signing_key_of_the_provider_is_found() -> None:
    with IdentityProvider() as provider:
        oidc = OidcAuthenticator(read_settings(_oidc(provider)), (), pause=0)
        assert oidc.authenticate(provider.token()).name == "oidc:alice"
        old = provider.token()
        provider.rotate("second")
        assert oidc.authenticate(provider.token()).name == "oidc:alice"
        with pytest.raises(NotAuthenticated):
            oidc.authenticate(old)


def test_unknown_signing_keys_do_not_become_a_flood_of_requests(tmp_path: Path) -> None:
    with IdentityProvider() as provider, IdentityProvider() as stranger:
        site = Site(tmp_path / "store.sqlite3", provider)
        stranger.rotate("a stranger's")
        assert {site.submit(stranger.token()).status_code for _ in range(20)} == {401}
        assert len(provider.requests) <= 2
        site.services.store.close()


def test_a_provider_that_is_away_is_said_so(tmp_path: Path) -> None:
    provider = IdentityProvider()  # not started
    site = Site(tmp_path / "store.sqlite3", provider)
    answer = site.submit(provider.token())
    assert (answer.status_code, answer.json["code"]) == (503, "identity_provider_unavailable")
    assert answer.headers["Retry-After"]
    assert site.submit(site.key()).status_code == 200, "keys need no provider"
    site.services.store.close()


def test_an_outage_of_the_provider_is_logged_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    provider = IdentityProvider()  # not started
    for _ in range(5):
        oidc = OidcAuthenticator(read_settings(_oidc(provider)), ())  # which leaves none alone for a while
        assert failure_of(oidc, provider.token()) == "the identity provider does not answer"
    assert caplog.text.count("keys cannot be fetched") <= 1


@pytest.mark.parametrize(
    "said", [b"<html>", b"[]", b"{}", b'{"keys": []}', b'{"keys": 5}', b"\xff", b"[" * 100_000]
)
def test_a_provider_that_answers_no_keys_is_away(said: bytes) -> None:
    class Astray(IdentityProvider):
        def take(self, request: Request) -> Answer:
            return Answer(200, said)

    with Astray() as provider:
        oidc = OidcAuthenticator(read_settings(_oidc(provider)), ())
        for _ in range(3):
            assert failure_of(oidc, provider.token()) == "the identity provider does not answer"
        assert len(provider.requests) == 1, "it is left alone for a while"


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SWALLOW])
def test_a_provider_whose_connection_breaks_is_away(fault: Fault) -> None:
    with IdentityProvider() as provider, Network(provider.url) as network:
        network.fault = fault
        oidc = OidcAuthenticator(
            read_settings({**_oidc(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}), (), timeout=1
        )
        assert failure_of(oidc, provider.token()) == "the identity provider does not answer"


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
def test_the_operator_says_which_algorithms_may_sign(algorithm: str) -> None:
    """Whatever PyJWT takes a key for that does not say."""
    with IdentityProvider() as provider:
        provider.add_curve("curve")
        oidc = OidcAuthenticator(read_settings({**_oidc(provider), "OIDC_ALGORITHMS": algorithm}), ())
        assert oidc.authenticate(provider.token(algorithm=algorithm)).name == "oidc:alice"
        others = {"RS256", "RS512", "PS256"} - {algorithm}
        bad = [provider.token(algorithm=other) for other in others]
        bad += [provider.token(algorithm="ES256", kid="curve"), provider.forged(), provider.unsigned()]
        bad.append(provider.token(algorithm=algorithm, published_as="curve"))
        for token in bad:
            with pytest.raises(NotAuthenticated):
                oidc.authenticate(token)


def test_the_log_says_whose_token_it_was_and_for_whom(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app")
    with IdentityProvider() as provider:
        oidc = OidcAuthenticator(read_settings(_oidc(provider)), ())
        for changes in ({"aud": "account\n"}, {"iss": f"{provider.issuer}/"}, {"aud": None}):
            with pytest.raises(NotAuthenticated):
                oidc.authenticate(provider.token(**changes))
    assert f"a token was refused: its aud is 'account\\n', not {AUDIENCE!r}" in caplog.text
    assert f"a token was refused: its iss is '{provider.issuer}/', not {provider.issuer!r}" in caplog.text
    assert "a token was refused: it has no claim aud" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"OIDC_JWKS_URL": "foo"}, "OIDC_JWKS_URL: must be an address that begins with https://"),
        ({"OIDC_JWKS_URL": "https://"}, "OIDC_JWKS_URL: must be an address that begins with https://"),
        ({"OIDC_JWKS_URL": "https://["}, "OIDC_JWKS_URL: "),
        ({"OIDC_USER_CLAIM": None, "OIDC_GRANTS": []}, "OIDC_USER_CLAIM or OIDC_GRANTS must be set"),
    ],
)
def test_a_provider_of_no_use_ends_the_start(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    provider = IdentityProvider()
    with pytest.raises(SettingsError, match=words):
        create_app({**SETTINGS, "SQLITE_PATH": tmp_path / "store", **_oidc(provider), **changes})


@pytest.mark.timed
def test_a_provider_that_hangs_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with IdentityProvider() as provider, Network(provider.url) as network:
        network.fault = Fault.HANG
        settings = {**_oidc(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}
        oidc = OidcAuthenticator(read_settings(settings), (), timeout=0.5)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: failure_of(oidc, provider.token()), range(24)))
        assert answers == ["the identity provider does not answer"] * 24
        assert time.monotonic() - began < 5, "not one after the other"


@pytest.mark.timed
def test_whoever_has_a_known_key_does_not_wait_for_a_provider_that_hangs() -> None:
    with IdentityProvider() as provider, IdentityProvider() as stranger, Network(provider.url) as network:
        stranger.rotate("a stranger's")
        settings = {**_oidc(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}
        oidc = OidcAuthenticator(read_settings(settings), (), timeout=3, pause=0)
        token = provider.token()
        assert oidc.authenticate(token).name == "oidc:alice"
        network.fault = Fault.HANG
        with ThreadPoolExecutor(8) as pool:
            junk = [pool.submit(failure_of, oidc, stranger.token()) for _ in range(8)]
            began = time.monotonic()
            assert oidc.authenticate(token).name == "oidc:alice"
            assert time.monotonic() - began < 1
            assert {future.result() for future in junk} == {"the identity provider does not answer"}
        assert time.monotonic() - began < 6, "one asks, and the others do not line up behind him"


def failure_of(oidc: OidcAuthenticator, token: str) -> str:
    with pytest.raises(IdentityProviderUnavailable) as failure:
        oidc.authenticate(token)
    return str(failure.value)


@pytest.mark.parametrize("name", [["alice"], {"alice": 1}, 7, "two\nlines", "half \ud800", "\u202e"])
def test_a_token_with_an_odd_name_is_no_user(site: Site, provider: IdentityProvider, name: Any) -> None:
    assert site.submit(provider.token(preferred_username=name)).status_code in (401, 403)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alice@uni.edu", "is 'alice@uni.edu': it must be a user name of the cluster"),
        ("Alice", "is 'Alice': it must be a user name of the cluster"),
        (None, "is missing or empty: it must be a user name of the cluster"),
    ],
)
def test_a_token_for_no_user_is_told_what_is_wrong(
    site: Site, provider: IdentityProvider, trail: Path, name: str | None, words: str
) -> None:
    answer = site.submit(provider.token(preferred_username=name))
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    assert answer.json["error"] == f"the token's claim preferred_username {words}"
    assert entries(trail)[-1]["caller"] == f"oidc:{name or 'sub:f81d4fae'}"
    operator = provider.token(preferred_username=name, groups=["operators"])
    assert site.call("GET", "/slurm/ping", operator).status_code == 200, "another grant is as good as ever"


@pytest.mark.parametrize("claim", ["", None])
def test_nobody_acts_for_the_user_of_a_claim_that_was_not_configured(
    tmp_path: Path, provider: IdentityProvider, claim: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if claim is not None:
        monkeypatch.setenv("OIDC_USER_CLAIM", claim)
    settings = {name: value for name, value in _oidc(provider).items() if name != "OIDC_USER_CLAIM"}
    grants = (ClaimGrant(claim="groups", value="chem", grant=ALICE),)
    oidc = OidcAuthenticator(read_settings(settings), grants)
    assert oidc.authenticate(provider.token()).grants == ()
    assert oidc.authenticate(provider.token(groups=["chem"])).grants == (ALICE,)


def test_a_subject_is_not_taken_for_a_user(site: Site, provider: IdentityProvider, trail: Path) -> None:
    assert site.submit(provider.token(preferred_username=None, sub="alice")).status_code == 403
    assert entries(trail)[-1]["caller"] == "oidc:sub:alice"


def test_clocks_may_differ_a_little(site: Site, provider: IdentityProvider) -> None:
    now = int(time.time())
    assert site.submit(provider.token(exp=now - 30)).status_code == 200
    assert site.submit(provider.token(iat=now + 30)).status_code == 200


def test_only_configured_algorithms_are_taken(tmp_path: Path) -> None:
    with IdentityProvider() as provider:
        provider.add_curve("curve")
        site = Site(tmp_path / "store.sqlite3", provider, OIDC_ALGORITHMS="ES256")
        assert site.submit(provider.token(algorithm="ES256", kid="curve")).status_code == 200
        assert site.submit(provider.token()).status_code == 401
        site.services.store.close()


def test_oidc_names_all_settings_that_are_missing() -> None:
    with pytest.raises(SettingsError, match=r"^OIDC_ISSUER and OIDC_AUDIENCE must be set where"):
        OidcAuthenticator(read_settings({"OIDC_JWKS_URL": "https://example.com/keys"}), ())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OIDC_ALGORITHMS", "HS256", "OIDC_ALGORITHMS"),
        ("OIDC_ALGORITHMS", "none", "OIDC_ALGORITHMS"),
        ("OIDC_ISSUER", None, "OIDC_ISSUER must be set"),
        ("OIDC_AUDIENCE", None, "OIDC_AUDIENCE must be set"),
        ("OIDC_JWKS_URL", None, "OIDC_JWKS_URL must be set"),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["fly"]}}],
            "OIDC_GRANTS: 0.grant.scopes",
        ),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["read"], "recipients": ["emial:*"]}}],
            "OIDC_GRANTS: 0.grant.recipients: .*no method emial",
        ),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["read"], "recipients": ["email:*.org"]}}],
            "OIDC_GRANTS: 0.grant.recipients: .*fits no receiver of email",
        ),
        ("ACCESS_METHODS", "passwords", "ACCESS_METHODS"),
    ],
)
def test_settings_that_are_wrong_name_themselves(
    tmp_path: Path, provider: IdentityProvider, name: str, value: Any, words: str
) -> None:
    with pytest.raises(Exception, match=words):
        Site(tmp_path / "store.sqlite3", provider, **{name: value})


def test_a_server_says_what_it_takes(new_site: Callable[..., Site], provider: IdentityProvider) -> None:
    answer = new_site().submit(provider.token())
    assert answer.json["error"] == "this server takes keys only"


# --- nothing is set -------------------------------------------------------------------------------


def test_without_proof_the_first_minutes_need_none(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    assert site.submit().status_code == 200
    for host in ("localhost:5001", "127.0.0.1", "[::1]:5001", "LOCALHOST"):
        assert site.call("GET", "/slurm/ping", Host=host).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:5001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "evil.example"},
        {"Host": "evil.example:5001"},
        {"Host": "127.0.0.1.evil.example"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Proto": "https"},
        {"X-Client-IP": "10.0.0.1"},
        {"True-Client-IP": "10.0.0.1"},
        {"CF-Connecting-IP": "10.0.0.1"},
        {"X-Original-Forwarded-For": "10.0.0.1"},
        {"X-Envoy-External-Address": "10.0.0.1"},
        {"X-Envoy-Expected-Rq-Timeout-Ms": "15000"},
        {"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"},
        {"X-Cluster-Client-IP": "10.0.0.1"},
        {"Fastly-Client-IP": "10.0.0.1"},
        {"Cdn-Loop": "example"},
    ],
)
def test_without_proof_no_page_and_no_stranger_is_served(
    new_site: Callable[..., Site], headers: dict[str, str]
) -> None:
    site = new_site(ACCESS_METHODS="")
    for path in ("/submit", "/monitor/task_uuid/x", "/slurm/ping"):
        method = "POST" if path == "/submit" else "GET"
        answer = site.call(method, path, None, {"task": make_task()}, **headers)
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden"), path
    assert site.slurm.submitted == []


def test_a_plain_nginx_is_told_by_its_old_http(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    old = {"SERVER_PROTOCOL": "HTTP/1.0"}
    assert site.client.get("/slurm/ping", environ_overrides=old).status_code == 403


def test_a_person_may_look_at_a_record_in_a_browser(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    uuid = site.submit().json["uuid"]
    answer = site.call("GET", f"/monitor/task_uuid/{uuid}", **{"Sec-Fetch-Site": "none"})
    assert answer.status_code == 200


def test_without_proof_other_machines_are_not_served(new_site: Callable[..., Site]) -> None:
    """Whatever server it runs under, and whoever made that listen everywhere."""
    site = new_site(ACCESS_METHODS="")
    there = {"REMOTE_ADDR": "10.1.2.3"}
    for there in ({"REMOTE_ADDR": "10.1.2.3"}, {"REMOTE_ADDR": ""}):  # the second is that of a Unix socket
        assert site.client.get("/monitor/task_uuid/x", environ_overrides=there).status_code == 403
    assert site.client.get("/ping", environ_overrides=there).status_code == 200


def test_the_risk_can_be_accepted(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="", ACCESS_WITHOUT_PROOF="true")
    there = {"REMOTE_ADDR": "10.1.2.3"}
    assert site.client.get("/monitor/task_uuid/x", environ_overrides=there).status_code == 400
    assert site.client.get("/slurm/ping", environ_overrides=there).status_code == 403, "operators sit here"
    assert site.call("GET", "/monitor/task_uuid/x", Host="cluster.example").status_code == 400
    assert site.call("GET", "/slurm/ping", Host="localhost").status_code == 200
    for host in ("cluster.example", "127.0.0.1.evil.example:5001"):  # as of a page that was rebound
        assert site.call("GET", "/slurm/ping", Host=host).status_code == 403
    assert site.call("GET", "/monitor/task_uuid/x", Origin="https://evil.example").status_code == 403


SETTINGS = {
    "PATH": "/usr/bin:/bin",
    "SLURM_REST_HOST": "http://127.0.0.1:9",
    "SLURM_JWT_HS256_KEY_BASE64": KEY,
    "FLASK_APP_PORT": "0",
}


def started(folder: Path, argv: list[str], **settings: str) -> tuple[int | None, str]:
    """How a server ended, None if it began to serve instead, and what it said."""
    environment = {**SETTINGS, "SQLITE_PATH": str(folder / "store.sqlite3"), **settings}
    said = folder / "said"
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        serves = re.compile("proxy listens on|Listening at")
        until(lambda: process.poll() is not None or serves.search(said.read_text()), 60, "the start")
        return process.poll(), said.read_text()
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "cluster.example"])
def test_a_server_without_proof_does_not_listen_elsewhere(tmp_path: Path, host: str) -> None:
    status, said = started(tmp_path, ["run.py"], FLASK_APP_HOST=host)
    assert status == 2
    assert re.fullmatch(
        rf"slurm-proxy cannot start: FLASK_APP_HOST: the server would listen on {re.escape(host)},"
        r" .*ACCESS_METHODS=keys.*\n",
        said,
    )


def test_nor_does_gunicorn(tmp_path: Path) -> None:
    argv = ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
    binds = (
        f"0.0.0.0:{free_port()}",
        f"127.0.0.1:{free_port()},[::]:{free_port()}",
        f"unix:{tmp_path}/socket",
    )
    for bind in binds:
        status, said = started(tmp_path, argv, GUNICORN_BIND=bind)
        assert status == 1, said
    for bind in binds:  # which the configuration file knows nothing of
        status, said = started(tmp_path, [*argv[:4], "--bind", bind.split(",")[-1], argv[4]])
        assert status == 1
        assert "slurm-proxy cannot start: GUNICORN_BIND: the server would listen on" in said
        assert "ACCESS_METHODS=keys" in said


@pytest.mark.parametrize(
    "argv", [["run.py"], ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]]
)
def test_a_trail_that_cannot_be_written_ends_the_start(tmp_path: Path, argv: list[str]) -> None:
    path = tmp_path / "none" / "audit.jsonl"
    bind = f"127.0.0.1:{free_port()}"
    status, said = started(tmp_path, argv, AUDIT_LOG_PATH=str(path), GUNICORN_BIND=bind)
    assert status in (1, 2), said
    assert "slurm-proxy cannot start: AUDIT_LOG_PATH: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ACCESS_METHODS": "keys"}, "INFO app.startup [-]: callers authenticate by: keys\n"),
        ({"ACCESS_WITHOUT_PROOF": "true"}, "WARNING app.startup [-]: there is no authentication"),
    ],
)
def test_with_proof_or_the_risk_accepted_it_listens(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    status, said = started(tmp_path, ["run.py"], FLASK_APP_HOST="0.0.0.0", **settings)
    assert status is None, said
    assert "slurm-proxy listens on" in said
    assert words in said


@pytest.mark.parametrize(
    "argv", [["run.py"], ["-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]]
)
def test_a_misspelt_setting_is_warned_of_by_every_server(tmp_path: Path, argv: list[str]) -> None:
    """Above all this one: whoever set it believes that callers must prove who they are."""
    bind = f"127.0.0.1:{free_port()}"
    status, said = started(tmp_path, argv, ACCESS_METHOD="keys", GUNICORN_BIND=bind)
    assert status is None, said
    words = "WARNING app.startup [-]: ACCESS_METHOD is no setting: did you mean ACCESS_METHODS?\n"
    assert said.count(words) == 1
    words = "there is no authentication: only processes of this user and of root on this machine are served\n"
    assert said.count(words) == 1


def test_a_server_warns_once_of_each_name_of_the_older_server(tmp_path: Path) -> None:
    status, said = started(
        tmp_path, ["run.py"], SMTP_SERVER="mail", SLACK_CHANNEL="a", NOTIFICATIONS_SLACK_CHANNEL="b"
    )
    assert status is None, said
    for words in (
        "SMTP_SERVER is the older server's name for NOTIFICATIONS_SMTP_SERVER: rename it",
        "SLACK_CHANNEL is ignored, because NOTIFICATIONS_SLACK_CHANNEL is set: remove it",
    ):
        assert said.count(f"WARNING app.startup [-]: {words}") == 1


# --- limits ---------------------------------------------------------------------------------------


def test_a_caller_who_asks_too_often_waits_whichever_process_he_asks(
    new_site: Callable[..., Site], trail: Path
) -> None:
    site = new_site(LIMIT_REQUESTS_PER_MINUTE=5)
    key, others = site.key(), site.key()
    other = site.another()
    headers = {"Authorization": f"Bearer {key}"}
    clients = [site.client, other.test_client()] * 3
    answers = [client.get("/monitor/task_uuid/x", headers=headers) for client in clients]
    assert [answer.status_code for answer in answers] == [400] * 5 + [429]
    assert answers[-1].json is not None
    assert answers[-1].json["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert entries(trail)[-1]["caller"].startswith("key:"), "it is known who asks too often"
    assert site.call("GET", "/monitor/task_uuid/x", others).status_code == 400
    other.extensions["slurm_proxy"].store.close()


def test_a_caller_has_only_so_many_jobs_in_flight(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_JOBS_IN_FLIGHT=2)
    key, others = site.key(), site.key()
    oldest, task = make_task(), make_task()
    first, second = site.call("POST", "/submit", key, {"task": oldest}), site.submit(key)
    third = site.call("POST", "/submit", key, {"task": task})
    assert (third.status_code, third.json["code"]) == (429, "too_many_jobs")
    assert int(third.headers["Retry-After"]) > 0
    assert site.submit(others).status_code == 200
    retry = {"Idempotency-Key": oldest["uuid"]}
    again = site.call("POST", "/submit", key, {"task": oldest}, **retry)
    assert again.json == first.json, "a retry is no further job"
    site.slurm.put(second.json["slurm_job_id"], JobState.COMPLETED)
    fence = site.services.store.acquire_lease("test", utc_now(), utc_now() + timedelta(minutes=1))
    site.services.monitor._poller.poll_once(utc_now(), fence)
    assert site.call("POST", "/submit", key, {"task": task}).status_code == 200, "its uuid was given back"


def test_a_place_that_cannot_be_counted_is_given_back(
    new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = new_site(LIMIT_JOBS_IN_FLIGHT=1)
    key, task = site.key(), make_task()

    def away(caller: str) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(site.services.store, "count_open_tasks", away)
        assert site.call("POST", "/submit", key, {"task": task}).status_code == 503
    assert site.call("POST", "/submit", key, {"task": task}).status_code == 200


# --- traces ---------------------------------------------------------------------------------------


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "audit.jsonl"
    audit.open_audit_trail(path)
    yield path
    audit.open_audit_trail(None)


def entries(trail: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trail.read_text().splitlines()]


def test_who_did_what_for_whom_is_on_record(site: Site, trail: Path) -> None:
    _, kept = site.keys.create("pipeline", ALICE, None)
    key = site.key()
    good = site.submit(key)
    made = site.keys.list_all()[-1]
    name = f"key:{made.name}:{made.id}"
    site.submit("sp_wrong_key")
    site.submit(key, username="bob")
    site.call("POST", f"/monitor/task_uuid/{good.json['uuid']}/cancel", key)
    site.call("GET", f"/monitor/task_uuid/{good.json['uuid']}", key)
    site.call("GET", "/slurm/ping", key)
    submitted, wrong, for_bob, cancelled, slurm = entries(trail)
    assert kept.name == "pipeline"
    assert submitted["caller"] == name
    assert submitted["action"] == "POST /submit"
    assert submitted["username"] == "alice"
    assert submitted["task_uuid"] == good.json["uuid"]
    assert submitted["slurm_job_id"] == good.json["slurm_job_id"]
    assert (submitted["status"], submitted["address"]) == (200, "127.0.0.1")
    assert submitted["request_id"] == good.headers["X-Request-Id"]
    assert submitted["at"].endswith(("Z", "+00:00"))
    assert (wrong["caller"], wrong["status"], wrong["code"]) == ("-", 401, "not_authenticated")
    assert (for_bob["username"], for_bob["status"]) == ("bob", 403)
    assert (cancelled["task_uuid"], cancelled["status"]) == (good.json["uuid"], 200)
    assert (cancelled["username"], cancelled["slurm_job_id"]) == ("alice", good.json["slurm_job_id"])
    assert (slurm["action"], slurm["status"]) == ("GET /slurm/ping", 403)


def test_a_deleted_job_is_an_audit_line_like_a_cancelled_task(site: Site, trail: Path) -> None:
    good = site.submit(site.key()).json
    path = f"/monitor/slurm_job_id/{good['slurm_job_id']}"
    site.call("DELETE", path, site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",))))
    site.call("DELETE", path, site.key())
    _, unknown, cancelled = entries(trail)
    assert (unknown["status"], unknown["slurm_job_id"]) == (404, good["slurm_job_id"])
    assert cancelled["action"] == "DELETE /monitor/slurm_job_id/<slurm_job_id>"
    assert (cancelled["task_uuid"], cancelled["slurm_job_id"]) == (good["uuid"], good["slurm_job_id"])
    assert (cancelled["username"], cancelled["status"]) == ("alice", 200)


def test_nothing_but_the_request_itself_says_whom_it_was_for(site: Site, trail: Path) -> None:
    task = make_task()
    site.call("POST", "/submit?username=bob&uuid=b&task_uuid=b", site.key(), {"task": task})
    admin = site.key(Grant(scopes=frozenset({Scope.ADMIN}), users="any"))
    site.call("POST", "/slurm/job/submit?username=alice", admin, {"task": {"username": "bob", "uuid": "b"}})
    first, second = entries(trail)
    assert (first["username"], first["task_uuid"]) == ("alice", task["uuid"])
    assert (second["username"], second.get("task_uuid")) == ("alice", None)


def test_the_trail_is_only_added_to_and_only_its_owner_reads_it(site: Site, trail: Path) -> None:
    assert trail.stat().st_mode & 0o777 == 0o600
    site.submit(site.key())
    before = trail.read_text()
    audit.open_audit_trail(trail)  # a restart
    site.submit(site.key())
    assert trail.read_text().startswith(before)
    assert len(entries(trail)) == 2
    trail.rename(trail.with_suffix(".1"))  # as logrotate does
    site.submit(site.key())
    assert len(entries(trail)) == 1
    assert trail.stat().st_mode & 0o777 == 0o600


def test_a_refusal_is_on_record_while_the_store_is_away(
    site: Site, trail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.services.store, "find_key", away)
    answer = site.submit(f"sp_{'0' * 12}_x")
    assert answer.status_code == 503
    assert entries(trail)[-1]["code"] == "store_unavailable"


def test_each_answer_names_its_request(site: Site) -> None:
    given = site.call("GET", "/ping", **{"X-Request-Id": "from-the-caller.1"})
    assert given.headers["X-Request-Id"] == "from-the-caller.1"
    made = [
        site.call("GET", "/ping", **{"X-Request-Id": bad}).headers["X-Request-Id"]
        for bad in ("", "a b", "x" * 65)
    ]
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in made)
    assert len(set(made)) == 3
    assert site.call("GET", "/nowhere").headers["X-Request-Id"]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Configures the log, and gives what was written."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def read(**settings: Any) -> str:
        if settings:
            configure_logging(read_settings(settings))
        return capfd.readouterr().err

    yield read
    root.handlers[:], root.level = handlers, level
    logging.getLogger("app").setLevel("INFO")


def test_the_log_is_json_where_programs_read_it(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="json")
    answer = site.submit(site.key())
    lines = [json.loads(line) for line in logged().splitlines()]
    mine = [line for line in lines if line["request_id"] == answer.headers["X-Request-Id"]]
    (request,) = [line for line in mine if line["name"] == "app.requests"]
    assert request["levelname"] == "INFO"
    assert re.fullmatch(r"POST /submit 200 by key:key-\S+ from 127\.0\.0\.1 in \d+ ms", request["message"])


def test_no_caller_writes_lines_of_his_own_into_the_log(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="text")
    forged = "x\n2026-01-01 00:00:00,000 INFO app.requests [-]: forged"
    logging.getLogger("app.test").warning("a caller said %s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("app.test").exception("it failed")
    site.call("GET", "/monitor/task_uuid/%0Aforged%0D%1B[2J", site.key())
    text = logged()
    assert "forged" in text
    assert "\x1b" not in text
    assert not any(line.startswith(("2026-01-01", "forged")) for line in text.splitlines())


# --- failed attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["sp_0123456789ab_x", "", "not.a.token"])
def test_failed_attempts_are_limited_and_bounded_in_the_log(
    new_site: Callable[..., Site], trail: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    site = new_site()
    caplog.set_level("INFO", "app")
    answers = [site.call("GET", "/monitor/task_uuid/x", text) for _ in range(300)]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429] * 270
    assert answers[-1].json["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert len(entries(trail)) == 30
    assert caplog.text.count("GET /monitor/task_uuid/<task_uuid> 4") == 30
    assert caplog.text.count("too many failed attempts to authenticate from 127.0.0.1") == 1
    assert site.submit(site.key()).status_code == 200, "a valid key works from the same address"
    assert site.client.get("/ping").status_code == 200
    elsewhere = {"REMOTE_ADDR": "10.1.2.3"}
    assert site.client.get("/monitor/task_uuid/x", environ_overrides=elsewhere).status_code == 401


def test_refused_tokens_are_bounded_in_the_log(
    site: Site, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app")
    for number in range(40):  # from as many addresses
        headers = {"Authorization": f"Bearer {provider.token(aud='another-service')}"}
        there = {"REMOTE_ADDR": f"10.0.0.{number}"}
        assert site.client.get("/slurm/ping", headers=headers, environ_overrides=there).status_code == 401
    assert caplog.text.count("a token was refused") == 30


def test_refusals_without_authentication_are_limited_too(new_site: Callable[..., Site], trail: Path) -> None:
    site = new_site(ACCESS_METHODS="", LIMIT_FAILED_ATTEMPTS_PER_MINUTE=3)
    there = {"REMOTE_ADDR": "10.1.2.3"}
    answers = [site.client.get("/slurm/ping", environ_overrides=there).status_code for _ in range(5)]
    assert answers == [403] * 3 + [429] * 2
    assert len(entries(trail)) == 3
    assert site.call("GET", "/slurm/ping").status_code == 200


def test_failed_attempts_are_counted_by_address_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    attempts = FailedAttempts(2, clock=lambda: now)

    def over(address: str) -> bool:
        return attempts.count(address).is_over_limit

    assert [over("10.0.0.1") for _ in range(3)] == [False, False, True]
    assert not over("10.0.0.2")
    assert over("::ffff:10.0.0.1"), "the same address"
    hosts = [f"2001:db8::{number:x}" for number in range(3)]
    assert [over(host) for host in hosts] == [False, False, True], "one host has 64 bits to itself"
    assert not over("2001:db8:0:1::1")
    now = 59.9
    assert over("10.0.0.1")
    now = 60.0
    assert not over("10.0.0.1")
    assert (
        "4 failed attempts to authenticate were not logged; the most frequent: 5 from 10.0.0.1" in caplog.text
    )


def test_failed_attempts_from_very_many_addresses_fill_neither_memory_nor_log() -> None:
    attempts = FailedAttempts(30, clock=lambda: 0.0)
    counted = [
        attempts.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in range(20_000)
    ]
    assert sum(attempt.is_logged for attempt in counted) == 600
    assert len(attempts._counts) <= 10_001


def test_failed_attempts_are_not_limited_if_the_limit_is_0() -> None:
    attempts = FailedAttempts(0)
    assert not any(
        attempt.is_over_limit or not attempt.is_logged for attempt in map(attempts.count, ["a"] * 1000)
    )


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "10.0.0.1", "192.0.2.7", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4, 192.0.2.7", "192.0.2.7"),  # the first is the client's own word
        ("10.0.0.0/8", "10.0.0.1", "192.0.2.7, 10.0.0.9", "192.0.2.7"),  # two proxies
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("10.0.0.0/8", "192.0.2.7", "1.2.3.4", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", "not an address\x7f", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", None, "10.0.0.1"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::7", "2001:db9::7"),
        ("2001:db8::/32", "2001:db8::1", "fe80::7%any text", "fe80::7"),
        ("unix", "10.0.0.1", "192.0.2.7", "10.0.0.1"),
        ("10.0.0.0/8", "", "192.0.2.7", "-"),
    ],
)
def test_the_trail_names_the_address_that_a_trusted_proxy_passes_on(
    new_site: Callable[..., Site], trail: Path, trusted: str, peer: str, forwarded: str | None, expected: str
) -> None:
    site = new_site(ACCESS_TRUSTED_PROXIES=trusted)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    site.client.get("/monitor/task_uuid/x", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    assert entries(trail)[-1]["address"] == expected


@pytest.mark.parametrize(
    ("trusted", "peer", "scheme", "expected"),
    [
        ("10.0.0.1", "10.0.0.1", "https", "https"),
        ("10.0.0.1", "10.0.0.1", "http, HTTPS", "https"),  # the last is the trusted proxy's
        ("10.0.0.1", "10.0.0.1", "javascript", "http"),
        ("10.0.0.1", "10.0.0.1", "", "http"),
        ("10.0.0.1", "10.0.0.2", "https", "http"),
        ("", "127.0.0.1", "https", "http"),
    ],
)
def test_the_examples_of_docs_have_the_scheme_that_a_trusted_proxy_passes_on(
    new_site: Callable[..., Site], trusted: str, peer: str, scheme: str, expected: str
) -> None:
    site = new_site(ACCESS_TRUSTED_PROXIES=trusted)
    headers = {"X-Forwarded-Proto": scheme, "Host": "slurm-proxy.example.com:8443"}
    page = site.client.get("/docs", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).text
    assert f"{expected}://slurm-proxy.example.com:8443/submit" in page


@pytest.mark.parametrize("word", ["nginx", "10.0.0.0/99", "unix:/run/x"])
def test_a_trusted_proxy_that_is_no_address_ends_the_start(word: str) -> None:
    with pytest.raises(
        SettingsError, match="ACCESS_TRUSTED_PROXIES: must be addresses, networks or the word"
    ):
        read_settings({"ACCESS_TRUSTED_PROXIES": f"10.0.0.1,{word}"})


def test_behind_a_unix_socket_the_trail_has_the_address_of_the_client(tmp_path: Path) -> None:
    """Also where the client of the socket calls itself by an address."""
    trail = tmp_path / "audit.jsonl"
    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
    settings = {
        "ACCESS_METHODS": "keys",
        "ACCESS_TRUSTED_PROXIES": "unix",
        "AUDIT_LOG_PATH": str(trail),
        "GUNICORN_BIND": f"unix:{tmp_path}/socket",
        "GUNICORN_WORKERS": "1",
        "SQLITE_PATH": str(tmp_path / "store.sqlite3"),
    }
    with (tmp_path / "said").open("w") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env={**SETTINGS, **settings}, stdout=log, stderr=log)
    try:
        until(lambda: "Listening at" in (tmp_path / "said").read_text(), 60, "the start")
        for forwarded in ("X-Forwarded-For: 192.0.2.7\r\n", ""):
            with socket.socket(socket.AF_UNIX) as client, contextlib.chdir(tmp_path):
                client.bind(f"10.0.0.{len(forwarded)}")
                client.connect("socket")
                client.sendall(
                    f"GET /slurm/ping HTTP/1.1\r\nHost: x\r\n{forwarded}Connection: close\r\n\r\n".encode()
                )
                assert b" 401 " in client.recv(65536)
        until(lambda: trail.read_text().count("\n") == 2, 10, "both lines")
    finally:
        process.terminate()
        process.wait(30)
    assert [entry["address"] for entry in entries(trail)] == ["192.0.2.7", "-"]


# --- keys in the trail ----------------------------------------------------------------------------


def test_keys_that_are_made_and_revoked_are_in_the_trail(site: Site, trail: Path) -> None:
    runner = site.app.test_cli_runner()
    made = runner.invoke(args=["keys", "create", "pipeline", "--user", "alice", "--scope", "read"])
    id_ = made.stdout.split("_")[1]
    assert runner.invoke(args=["keys", "create", "pipeline", "--any-user"]).exit_code == 1
    assert runner.invoke(args=["keys", "revoke", id_]).exit_code == 0
    assert runner.invoke(args=["keys", "revoke", id_]).exit_code == 1
    created, revoked = entries(trail)
    for entry, action in ((created, "keys create"), (revoked, "keys revoke")):
        assert (entry["action"], entry["key"]) == (action, f"key:pipeline:{id_}")
        assert entry["grant"] == "read for alice"
        assert entry["caller"].startswith(f"cli:{pwd.getpwuid(os.getuid()).pw_name}")
    assert made.stdout.strip() not in trail.read_text()


def test_the_command_line_writes_to_the_configured_trail(tmp_path: Path) -> None:
    def run(path: Path) -> subprocess.CompletedProcess[str]:
        environment = {**SETTINGS, "SQLITE_PATH": str(tmp_path / "store"), "AUDIT_LOG_PATH": str(path)}
        argv = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", "ci", "--any-user"]
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    failed = run(tmp_path / "none" / "audit.jsonl")
    assert failed.returncode == 1
    assert failed.stderr == (
        f"Error: AUDIT_LOG_PATH: there is no folder {tmp_path}/none: make it, owned by the user of this"
        " service\n"
    )
    assert run(tmp_path / "audit.jsonl").returncode == 0, "no key was made before"
    (entry,) = entries(tmp_path / "audit.jsonl")
    assert (entry["action"], entry["grant"]) == ("keys create", "cancel read submit for any user")


# --- characters -----------------------------------------------------------------------------------


def test_no_line_separator_or_control_character_stands_raw_in_the_trail(site: Site, trail: Path) -> None:
    odd = "".join(
        map(chr, [*range(1, 32), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0x202E, 0xFEFF, 0xE0001])
    )
    names = [odd[:50], odd[50:], 'quo"te\\', "Zoë 漢字 🦠"]
    for name in names:
        assert site.submit(site.key(), username=name).status_code == 400
    names.append("half \ud800")
    audit.write_audit_entry(audit.AuditEntry.model_validate({**entries(trail)[0], "username": names[-1]}))
    text = trail.read_bytes().decode()
    assert all(character.isprintable() for line in text.split("\n") for character in line)
    assert [entry["username"] for entry in entries(trail)] == names
    assert "Zoë 漢字 🦠" in text


def test_the_access_line_has_fields_where_programs_read_it(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="json")
    key, task = site.key(), make_task()
    job_id = site.call("POST", "/submit", key, {"task": task}).json["slurm_job_id"]
    paths = [
        f"/monitor/task_uuid/{task['uuid']}",
        f"/monitor/slurm_job_id/{job_id}",
        "/monitor/task_uuid/none",
    ]
    for path in paths:
        site.call("GET", path, key)
    site.call("GET", f"/monitor/task_uuid/{task['uuid']}")
    site.call("GET", "/ping")
    lines = [json.loads(line) for line in logged().splitlines()]
    found = [line for line in lines if line["name"] == "app.requests"]
    assert all(isinstance(line["duration"], float) and 0 <= line["duration"] < 10 for line in found)
    assert [
        (line["method"], line["status"], line["user"], line["uuid"], line["slurm_job_id"]) for line in found
    ] == [
        ("POST", 200, "alice", task["uuid"], job_id),
        ("GET", 200, "alice", task["uuid"], job_id),
        ("GET", 200, "alice", task["uuid"], job_id),
        ("GET", 400, None, "none", None),
        ("GET", 401, None, task["uuid"], None),
        ("GET", 200, None, None, None),
    ]
    assert found[0]["caller"].startswith("key:key-")
    assert (found[0]["route"], found[0]["address"]) == ("/submit", "127.0.0.1")
    assert found[4]["caller"] == "-"
