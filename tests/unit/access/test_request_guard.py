"""Every route, called by every kind of caller."""

from typing import Any

import pytest

from app.job_state import JobState
from app.models.caller import ORDINARY_SCOPES, Caller, Grant, Scope
from app.models.job_action import JobAction
from tests.support.access import ALICE, Site, proof
from tests.support.real.identity_provider import IdentityProvider
from tests.support.tasks import make_task, new_uuid

# The columns: what is asked for, always about a job of alice's.
ROUTES = (
    "submit",
    "dry_run",
    "watch",
    "by_job_id",
    "by_uuid",
    "cancel",
    "cancel_job",
    "resubmit",
    "resubmit_job",
    "by_state",
    "list",
    "notifications",
    "retry",
    "retry_all",
    "slurm_ping",
    "slurm_diag",
    "slurm_jobs",
    "slurm_job",
    "slurm_submit",
    "whoami",
    "catalogue",
    "ping",
    "healthz",
    "openapi",
    "docs",
    "no_route",
    "wrong_method",
)
# Further columns, for which the same is expected as for "cancel".
LIKE_CANCEL = (
    "cancel_by_id",
    "hold",
    "hold_by_id",
    "release",
    "release_by_id",
    "requeue",
    "requeue_by_id",
)


NOBODY = "401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401"

NOTHING = NOBODY.replace("401", "403")

FOR_EVERYONE = "200 200 200 200 404 405"  # the last columns, which are the same for every caller


# 404 for a retry: there is no such notification, which only an operator learns.
EXPECTED = {
    "no key": NOBODY,
    "no bearer": NOBODY,
    "a wrong key": NOBODY,
    "half a key": NOBODY,
    "an expired key": NOBODY,
    "a revoked key": NOBODY,
    "another user's": "403 403 403 400 400 404 404 404 404 200 200 403 403 403 403 403 403 403 403 200 200",
    "a reader": "403 403 403 200 200 403 403 403 403 200 200 403 403 403 403 403 403 403 403 200 403",
    "a submitter": "200 200 400 403 403 403 403 403 403 403 403 403 403 403 403 403 403 403 403 200 200",
    "a canceller": "403 403 403 403 403 200 200 403 403 403 403 403 403 403 403 403 403 403 403 200 403",
    "all for alice": "200 200 200 200 200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200",
    "all for any": "200 200 200 200 200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200",
    "an operator": "403 403 403 403 403 403 403 403 403 403 200 200 404 200 200 200 200 200 200 200 403",
    "a good token": "200 200 200 200 200 200 200 200 200 200 200 403 403 403 403 403 403 403 403 200 200",
    "an operator's token": f"{8 * '200 '}200 200 200 200 404 200 200 200 200 200 200 200 200",
    "a token for bob": "403 403 403 400 400 404 404 404 404 200 200 403 403 403 403 403 403 403 403 200 200",
    "a token for no user": NOTHING,
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


def requests_about_a_job(site: Site) -> dict[str, tuple[str, str, Any]]:
    """Submit a job as alice, and return method, path and body of each column's request about this job."""
    task = make_task()
    job_id = site.services.submitter.submit(Caller("test", (ALICE,)), {"task": task}).slurm_job_id
    site.slurm.put(job_id, restarts=1, requeued_tasks=1)  # so that it may be requeued again
    elsewhere = site.slurm.put(900_000 + job_id, JobState.RUNNING).job_id
    watched = {"monitor": {"task": {"username": "alice", "uuid": new_uuid()}, "slurm_job_id": elsewhere}}
    by_uuid, by_id = f"/monitor/task_uuid/{task['uuid']}", f"/monitor/slurm_job_id/{job_id}"
    actions = {f"{action}": ("POST", f"{by_uuid}/{action}", None) for action in JobAction}
    actions_by_id = {f"{action}_by_id": ("POST", f"{by_id}/{action}", None) for action in JobAction}
    return {
        **actions,
        **actions_by_id,
        "cancel_many": ("POST", "/monitor/cancel", {"filter": {"uuid": task["uuid"]}}),
        "submit": ("POST", "/submit", {"task": make_task()}),
        "dry_run": ("POST", "/submit?dry_run=true", {"task": make_task()}),
        "watch": ("POST", "/monitor", watched),
        "resubmit": ("POST", f"/monitor/task_uuid/{task['uuid']}/resubmit", None),
        "resubmit_job": ("POST", f"/monitor/slurm_job_id/{job_id}/resubmit", {"task": {"cmd": "ls"}}),
        "by_job_id": ("GET", by_id, None),
        "by_uuid": ("GET", by_uuid, None),
        "cancel_job": ("DELETE", by_id, None),
        "by_state": ("GET", "/monitor/slurm_job_state/PENDING", None),
        "list": ("GET", "/monitor", None),
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
        "healthz": ("GET", "/healthz", None),
        "whoami": ("GET", "/whoami", None),
        "catalogue": ("GET", "/catalogue", None),
        "no_route": ("GET", "/admin", None),
        "wrong_method": ("PUT", "/submit", None),
    }


def call_of(site: Site, route: str, given: str | None, **headers: str) -> Any:
    method, path, body = requests_about_a_job(site)[route]
    return site.call(method, path, given, body, **headers)


@pytest.mark.parametrize("who", EXPECTED)
def test_every_route_by_every_kind_of_caller(site: Site, provider: IdentityProvider, who: str) -> None:
    given = proof(site, provider, who)
    headers = {"Authorization": f"Basic {site.key()}"} if who == "no bearer" else {}
    statuses = dict(zip(ROUTES, f"{EXPECTED[who]} {FOR_EVERYONE}".split(), strict=True))
    statuses |= dict.fromkeys(LIKE_CANCEL, statuses["cancel"])
    statuses["cancel_many"] = statuses["cancel"].replace("404", "200")  # an empty list
    for route, expected in statuses.items():
        before = len(site.slurm.submitted)
        answer = call_of(site, route, given, **headers)
        assert answer.status_code == int(expected), (route, answer.text)
        if code := CODES.get(answer.status_code):
            assert answer.json["code"].startswith(code), (route, answer.text)
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        submits = route in ("submit", "resubmit", "resubmit_job") and answer.status_code == 200
        assert len(site.slurm.submitted) == before + 1 + submits


def test_the_matrix_has_every_route(site: Site) -> None:
    routes = site.app.url_map.bind("localhost")
    asked = set()
    for column, (method, path, _) in requests_about_a_job(site).items():
        if column not in ("no_route", "wrong_method"):
            asked.add((method, routes.match(path.partition("?")[0], method)[0]))
    assert asked == {
        (method, rule.endpoint)
        for rule in site.app.url_map.iter_rules()
        if not rule.endpoint.startswith("task_health.")  # those are in test_operator_routes.py
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {*ROUTES, *LIKE_CANCEL, "cancel_many"} == requests_about_a_job(site).keys()


@pytest.mark.parametrize("users", [("alice",), "any"])
def test_a_list_of_records_holds_those_of_the_callers_users_alone(site: Site, users: Any) -> None:
    everybody = site.key(Grant(scopes=ORDINARY_SCOPES, users="any"))
    for username in ("alice", "bob"):
        assert site.submit(everybody, username=username).status_code == 200
    given = site.key(Grant(scopes=frozenset({Scope.READ}), users=users))
    expected = ["bob", "alice"] if users == "any" else ["alice"]
    for path, field in (
        ("/monitor/slurm_job_state/PENDING", "monitor"),
        ("/monitor/slurm_job_state/PENDING", "tasks"),
        ("/monitor", "tasks"),
        ("/monitor?state=open&username=alice&username=bob", "tasks"),
    ):
        listed = site.call("GET", path, given).json[field]
        assert [record["slurm_username"] for record in listed] == expected
