"""For which users, partitions and receivers a grant allows a call."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import (
    Forbidden,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.lifecycle.repeated_submission import make_stored_key
from app.models.caller import ORDINARY_SCOPES, Caller, Grant, Scope
from app.models.job_action import JobAction
from app.models.record import utc_now
from app.models.refused_users import RefusedUsers
from app.models.task import Task
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from tests.support.access import ALICE, Site
from tests.support.answers import body_of
from tests.support.tasks import make_task, new_uuid


def test_a_job_of_another_user_is_answered_like_a_missing_one(site: Site) -> None:
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
def test_grant_covers_partitions_and_accounts(site: Site, slurm: dict[str, str], fault: str | None) -> None:
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
def test_grant_covers_recipients(site: Site, recipient: Any, status: int) -> None:
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
def test_the_real_receiver_of_a_message_is_compared_with_the_grant(
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


def test_the_scope_admin_includes_monitor_and_no_other_scope_does() -> None:
    operator = Caller("ops", (Grant(scopes=frozenset({Scope.ADMIN}), users="any"),))
    watcher = Caller("prometheus", (Grant(scopes=frozenset({Scope.MONITOR}), users="any"),))
    ordinary = Caller("alice", (Grant(scopes=ORDINARY_SCOPES, users="any"),))
    assert operator.is_allowed_for_all(Scope.MONITOR)
    assert [scope for scope in Scope if watcher.is_allowed(scope)] == [Scope.MONITOR]
    assert not ordinary.is_allowed(Scope.MONITOR)


def test_a_unix_group_stands_for_its_members() -> None:
    grant = Grant(scopes=ORDINARY_SCOPES, groups=("daemon",))
    assert grant.covers_user("daemon")
    assert not grant.covers_user("games")
    assert not grant.covers_user("nobody-knows-me")


@pytest.mark.parametrize("username", ["root", "slurm"])
def test_no_caller_runs_as_a_service_user(site: Site, username: str) -> None:
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
@pytest.mark.parametrize(
    "route",
    [
        "POST /monitor/task_uuid/{}/cancel",
        "POST /monitor/slurm_job_id/{}/hold",
        "POST /monitor/task_uuid/{}/release",
        "DELETE /monitor/slurm_job_id/{}",
    ],
)
def test_no_job_of_a_service_user_is_changed(
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
    assert f"this server does not act as {username}" in answer.json["error"]
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
        lambda: client.control.cancel(5, "root"),
        lambda: client.control.cancel(5, "slurm"),
        lambda: client.send_raw("POST", "job/submit", user="root", json={}),
    ):
        with pytest.raises(Forbidden, match="this server does not act as"):
            call()
    with pytest.raises(SlurmUnavailable):  # slurmrestd's version is asked for first
        client.submit(task, "true", "tag", utc_now())
    assert set(made) <= {"slurm"}, "for the service itself"
    client.close()


def test_a_registration_does_not_reveal_a_task_of_another_user(site: Site) -> None:
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
    stored = {make_stored_key(name, key) for name in names for key in ("c", "b c", "20b c", " ")}
    assert len(stored) == 6 * 4
    assert make_stored_key("key:ci:1f0c", "nightly") == "key:ci:1f0c nightly", "as before"


@pytest.mark.parametrize("action", JobAction)
def test_another_users_task_answers_every_action_as_an_unknown_one(site: Site, action: JobAction) -> None:
    task = site.submit(site.key(), uuid="of-alice").json
    of_bob = site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",)))
    before = list(site.slurm.calls)
    for known, unknown in (
        ("task_uuid/of-alice", "task_uuid/of-nobody"),
        (f"slurm_job_id/{task['slurm_job_id']}", "slurm_job_id/424242"),
    ):
        answers = [site.call("POST", f"/monitor/{where}/{action}", of_bob) for where in (known, unknown)]
        assert [answer.status_code for answer in answers] == [404, 404]
        ids = (known.partition("/")[2], unknown.partition("/")[2])
        bodies = [answer.text.replace(id_, "X") for answer, id_ in zip(answers, ids, strict=True)]
        assert bodies[0] == bodies[1]
    assert site.slurm.calls == before


@pytest.mark.parametrize("action", JobAction)
def test_a_reader_may_not_change_a_task_that_it_may_read(site: Site, action: JobAction) -> None:
    site.submit(site.key(), uuid="of-alice")
    grants = Grant(scopes=frozenset({Scope.READ, Scope.SUBMIT}), users=("alice",))
    answer = site.call("POST", f"/monitor/task_uuid/of-alice/{action}", site.key(grants))
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
