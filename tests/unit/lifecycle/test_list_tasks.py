"""The routes of lists: who sees what, and which queries are refused."""

from datetime import timedelta
from typing import Any

import pytest

from app.job_state import JobState
from app.models.caller import ORDINARY_SCOPES, Caller, Grant, Scope
from app.models.task_filter import MAX_UUIDS
from tests.support.access import ALICE, Site
from tests.support.stores import make_record
from tests.support.tasks import make_task, new_uuid

ANYBODY = Grant(scopes=ORDINARY_SCOPES, users="any")
MONITOR = Grant(scopes=frozenset({Scope.MONITOR}), users="any")


def submit(site: Site, username: str = "alice", **fields: Any) -> dict[str, Any]:
    task = make_task(username=username, **fields)
    answer = site.call("POST", "/submit", site.key(ANYBODY), {"task": task})
    assert answer.status_code == 200
    return task


def listed(site: Site, query: str, grant: Grant = ANYBODY) -> list[str]:
    answer = site.call("GET", f"/monitor{query}", site.key(grant))
    assert answer.status_code == 200, answer.text
    return [task["uuid"] for task in answer.json["tasks"]]


def test_a_filter_never_shows_tasks_of_users_whom_the_caller_may_not_read(site: Site) -> None:
    mine, others = submit(site)["uuid"], submit(site, "bob")["uuid"]
    for query in ("", "?username=bob&username=alice", "?state=open", f"?uuid={others}&uuid={mine}"):
        assert listed(site, query, ALICE) == [mine], query
    for query in ("?username=bob", f"?uuid={others}", "?username=nobody"):
        assert listed(site, query, ALICE) == []


def test_the_scope_monitor_shows_all_users_but_no_whole_records(site: Site) -> None:
    uuids = [submit(site, name)["uuid"] for name in ("alice", "bob")]
    assert listed(site, "", MONITOR) == uuids[::-1]
    assert listed(site, f"?uuid={uuids[0]}", MONITOR) == uuids[:1]
    refused = site.call("GET", "/monitor/slurm_job_state/PENDING", site.key(MONITOR))
    assert refused.status_code == 403
    whole = site.services.listing.list_by_state(Caller("both", (MONITOR, ALICE)), "PENDING", {})
    assert [task.uuid for task in whole.tasks] == uuids[:1]
    assert [record.task["uuid"] for record in whole.monitor] == uuids[:1]


def test_a_member_of_a_granted_group_is_seen(site: Site) -> None:
    mine = submit(site, "root_", name="echo_hello_world")["uuid"]
    site.services.store.add_record(make_record(task=make_task(username="root", uuid="of-root")))
    grant = Grant(scopes=frozenset({Scope.READ}), groups=("root",), users=("root_",))
    assert sorted(listed(site, "", grant)) == sorted(["of-root", mine])
    assert listed(site, "?username=root", grant) == ["of-root"]


def test_a_list_by_uuids_has_their_order_and_names_the_unknown_ones(site: Site) -> None:
    uuids = [submit(site)["uuid"] for _ in range(3)]
    others, nothing = submit(site, "bob")["uuid"], new_uuid()
    asked = [uuids[1], nothing, uuids[2], others, uuids[0], uuids[1]]
    query = "&".join(f"uuid={uuid}" for uuid in asked)
    answer = site.call("GET", f"/monitor?{query}", site.key(ALICE)).json
    assert [task["uuid"] for task in answer["tasks"]] == [uuids[1], uuids[2], uuids[0]]
    assert answer["unknown"] == [nothing, others]
    assert answer["next"] is None
    filtered = site.call("GET", f"/monitor?{query}&state=ended", site.key(ALICE)).json
    assert filtered == {"tasks": [], "next": None, "unknown": [nothing, others]}


def test_pages_follow_each_other_by_the_cursor(site: Site) -> None:
    uuids = [submit(site)["uuid"] for _ in range(5)]
    key, found, path = site.key(ALICE), [], "/monitor/?limit=2&order=oldest"
    answer = site.call("GET", path, key).json
    while True:
        found += [task["uuid"] for task in answer["tasks"]]
        if answer["next"] is None:
            break
        answer = site.call("GET", f"{path}&after={answer['next']}", key).json
    assert found == uuids


def test_a_state_is_paged_like_every_list(site: Site) -> None:
    uuids = [submit(site)["uuid"] for _ in range(3)]
    path, key = "/monitor/slurm_job_state/PENDING?limit=2&order=oldest&username=alice", site.key(ALICE)
    first = site.call("GET", path, key).json
    assert [record["task"]["uuid"] for record in first["monitor"]] == uuids[:2]
    second = site.call("GET", f"{path}&after={first['next']}", key).json
    assert [record["task"]["uuid"] for record in second["monitor"]] == uuids[2:]
    assert second["next"] is None


def test_times_are_those_of_the_store(site: Site) -> None:
    store = site.services.store
    for minutes in (10, 90, 1500):
        at = store.now() - timedelta(minutes=minutes)
        store.add_record(make_record(task=make_task(uuid=f"{minutes}-ago"), created_at=at, updated_at=at))
    assert listed(site, "?since=1h") == ["10-ago"]
    assert listed(site, "?until=1h") == ["90-ago", "1500-ago"]
    assert listed(site, "?since=1d&until=20m") == ["90-ago"]
    day = (store.now() - timedelta(days=1)).date().isoformat()
    assert listed(site, f"?since={day}T00:00:00 00:00&order=oldest&limit=1") in (["1500-ago"], ["90-ago"])


def test_the_filters_failed_and_ended_agree_with_the_fields_of_the_summaries(site: Site) -> None:
    store = site.services.store
    states = [None, *JobState]
    for state in states:
        name = str(state)
        store.add_record(
            make_record(task=make_task(uuid=name), slurm_job_id=state and 5, slurm_job_state=state)
        )
    refused = make_record(task=make_task(uuid="refused"), submission_error="Slurm refused")
    store.add_record(refused)
    everything = site.call("GET", "/monitor", site.key(ANYBODY)).json["tasks"]
    assert len(everything) == len(states) + 1
    for word, is_met in (
        ("open", lambda task: not task["ended"]),
        ("ended", lambda task: task["ended"]),
        ("failed", lambda task: task["succeeded"] is False),
    ):
        expected = [task["uuid"] for task in everything if is_met(task)]
        assert sorted(listed(site, f"?state={word}")) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("state=faild", "state: faild is not a job state; did you mean failed?"),
        ("state=pending", "state: pending is not a job state; did you mean PENDING?"),
        (
            "state=FAILED,TIMEOUT",
            "state: FAILED,TIMEOUT is not a job state; give several states as several values",
        ),
        ("usrname=x", "usrname: is not known; did you mean username?"),
        ("nonsense=x", "nonsense: is not known; GET /docs lists the known keys"),
        ("order=newst", "order: newst is not an order; did you mean newest?"),
        ("order=", "order:  is not an order; it must be newest or oldest"),
        ("limit=0", "limit: must be a whole number from 1 to 1000"),
        ("limit=1001", "limit: must be a whole number from 1 to 1000"),
        ("limit=x", "limit: must be a whole number from 1 to 1000"),
        ("limit=1&limit=2", "limit: must occur only once"),
        ("after=x", "after: must be the `next` of a page, unchanged"),
        ("after=", "after: must be one line of text, 1 to 1024 characters"),
        (
            "since=soon",
            "since: must be a time in ISO 8601 such as 2026-01-31T08:00Z, or an age such as 30m, 2h or 7d",
        ),
        ("until=2h&until=1h", "until: must occur only once"),
        ("name=", "name: must be one line of text, 1 to 1024 characters"),
        ("job_name=a%00b", "job_name: must be one line of text, 1 to 1024 characters"),
        ("&".join(["partition=a"] * 101), "partition: must have 1 to 100 values"),
        ("&".join(["uuid=a"] * (MAX_UUIDS + 1)), f"uuid: must have 1 to {MAX_UUIDS} values"),
        ("uuid=a&limit=5", "limit: cannot be combined with uuid"),
        (
            "uuid=a&order=oldest&after=x",
            "order: cannot be combined with uuid; after: cannot be combined with uuid",
        ),
        (
            "limit=0&order=x&since=x&state=x",
            "state: x is not a job state; it must be open, ended, failed, or a",
        ),
    ],
)
def test_a_query_with_faults_is_refused_and_each_is_named(site: Site, query: str, error: str) -> None:
    answer = site.call("GET", f"/monitor?{query}", site.key(ALICE))
    assert answer.status_code == 400
    assert answer.json["code"] == "invalid_request"
    assert error in answer.json["error"]


def test_the_path_names_the_state_of_a_list(site: Site) -> None:
    answer = site.call("GET", "/monitor/slurm_job_state/PENDING?state=FAILED", site.key(ALICE))
    assert (answer.status_code, answer.json["details"]) == (
        400,
        ["state: must be left out; the path has the state"],
    )
