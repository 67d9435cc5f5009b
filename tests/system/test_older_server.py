"""Records of the service that this one replaces, on a real MongoDB."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId, Regex
from flask import Flask

from app.environment import read_settings
from app.errors import StoreRefused
from app.job_state import JobState
from app.models.record import utc_now
from app.models.task_filter import TaskFilter
from app.services import build_services
from app.store.mongo.take_over import NEWEST_FIRST, OF_EARLIER_VERSION, OPEN_OF_OLDER_SERVER
from tests.support.contract import Contract
from tests.support.older_server import (
    NAIVE_NOW,
    YEARS_AGO,
    Cycles,
    Deployment,
    older_document,
    two_with_one_uuid,
)
from tests.support.real.mongod import Mongod
from tests.support.service import ROOT
from tests.support.tasks import make_email, make_task, new_uuid

pytestmark = pytest.mark.real


@pytest.fixture
def deployment(mongod: Mongod) -> Iterator[Deployment]:
    deployment = Deployment(mongod.uri)
    yield deployment
    deployment.close()


def get(app: Flask, path: str) -> Any:
    """Return the body of an answer that is 200 and as the OpenAPI document has it."""
    client = app.test_client()
    answer = client.get(path)
    Contract(client.get("/openapi.json").json or {}).check("GET", path.partition("?")[0], answer)
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.parametrize("updated_at", [None, NAIVE_NOW + timedelta(seconds=5)])
@pytest.mark.parametrize("job_id", [4711, "4711"])
def test_an_older_record_is_readable_by_both_gets(
    deployment: Deployment, job_id: object, updated_at: datetime | None
) -> None:
    document = older_document(job_id, created_at=NAIVE_NOW, updated_at=updated_at)
    deployment.tasks.insert_one(document)
    app = deployment.start()
    task = document["task"]
    shown = get(app, f"/monitor/task_uuid/{task['uuid']}")["monitor"]
    assert shown == get(app, "/monitor/slurm_job_id/4711")["monitor"]
    assert shown == {
        "slurm_username": task["username"],
        "slurm_job_id": 4711,
        "slurm_job_state": "RUNNING",
        "ended": False,
        "succeeded": None,
        "task": task,
        "created_at": NAIVE_NOW.isoformat() + "+00:00",
        "updated_at": (updated_at or NAIVE_NOW).isoformat() + "+00:00",
        "notifications": [],
    }


@pytest.mark.parametrize("uuid", ["a-task", 17])
def test_an_older_record_can_be_resubmitted(deployment: Deployment, uuid: object) -> None:
    task = {**make_task(), "uuid": uuid}
    deployment.tasks.insert_one(older_document("4711", "COMPLETED", task=task, created_at=YEARS_AGO))
    client = deployment.start().test_client()
    for path in ("slurm_job_id/4711", f"task_uuid/{uuid}"):
        answer: Any = client.post(f"/monitor/{path}/resubmit", json={"task": {"slurm": {"mem": 200}}}).json
        assert answer["resubmitted_from"] == str(uuid)
        found: Any = client.get(f"/monitor/task_uuid/{answer['uuid']}").json
        slurm = {**task["slurm"], "mem": 200}
        assert found["monitor"]["task"] == {**task, "uuid": answer["uuid"], "slurm": slurm}
    earlier: Any = client.get(f"/monitor/task_uuid/{uuid}").json
    assert len(earlier["monitor"]["resubmitted_as"]) == 2
    assert earlier["monitor"]["task"] == task


def test_resubmitting_an_older_record_names_missing_fields_which_a_patch_can_add(
    deployment: Deployment,
) -> None:
    task = make_task()
    given = {name: task.pop(name) for name in ("cwd", "dirs")}
    deployment.tasks.insert_one(older_document(4711, "FAILED", task=task, created_at=YEARS_AGO))
    client = deployment.start().test_client()
    refused: Any = client.post("/monitor/slurm_job_id/4711/resubmit").json
    assert refused["details"] == ["task.cwd: is required", "task.dirs: is required"]
    answer = client.post("/monitor/slurm_job_id/4711/resubmit", json={"task": given})
    assert answer.status_code == 200


@pytest.mark.parametrize("state", ["completed", "Done", "", "SUBMITTED", None, ["RUNNING"], 3])
def test_an_older_record_with_a_state_that_slurm_never_says_is_readable_as_unknown(
    deployment: Deployment, state: object
) -> None:
    document = older_document(4711, state)
    deployment.tasks.insert_one(document)
    shown = get(deployment.start(), f"/monitor/task_uuid/{document['task']['uuid']}")["monitor"]
    assert shown["slurm_job_state"] == JobState.UNKNOWN


def test_older_records_with_a_state_that_slurm_never_says_are_listed_as_unknown(
    deployment: Deployment,
) -> None:
    app = deployment.start()
    answer = app.test_client().post("/submit", json={"task": make_task()})
    assert answer.status_code == 200
    reservation = deployment.tasks.find_one() or {}
    reservation |= {"_id": ObjectId(), "uuid": new_uuid(), "slurm_job_id": None, "slurm_job_state": None}
    states = ["completed", "Done", "", "SUBMITTED", "SUBMITTED", None, 3, "UNKNOWN"]
    older = [older_document(number, state) for number, state in enumerate(states, 1)]
    taken_over = {**older_document(20, None), "taken_over_at": utc_now(), "notifications": []}
    stateless = older_document(21)
    del stateless["slurm_job_state"]
    known = older_document(22, "COMPLETED")
    deployment.tasks.insert_many([reservation, *older, taken_over, stateless, known])
    listed = get(app, "/monitor/slurm_job_state/UNKNOWN")["monitor"]
    assert {record["slurm_job_state"] for record in listed} == {"UNKNOWN"}
    assert sorted(record["slurm_job_id"] for record in listed) == [*range(1, len(states) + 1), 20, 21]


@pytest.mark.parametrize("state", [{"$gt": ""}, {"$odd": 1}, Regex("^C")])
def test_an_older_record_with_a_query_operator_as_state_breaks_no_list_or_count(
    deployment: Deployment, state: object
) -> None:
    app = deployment.start()
    older = [older_document(5, "Done"), older_document(6, state), older_document(7, "COMPLETED")]
    deployment.tasks.insert_many(older)
    listed = get(app, "/monitor/slurm_job_state/UNKNOWN")["monitor"]
    assert [record["slurm_job_id"] for record in listed] == [5]
    assert len(get(app, "/monitor")["tasks"]) == 3
    assert app.extensions["slurm_proxy"].store.count_tasks() == {"UNKNOWN": 2, "COMPLETED": 1}


@pytest.mark.parametrize("usernames", [None, ["alice", "bob"]])
def test_a_list_of_older_records_examines_only_those_that_it_returns(
    deployment: Deployment, usernames: list[str] | None
) -> None:
    app = deployment.start()
    words = ("SUBMITTED", "Done", None, "COMPLETED")
    deployment.tasks.insert_many([older_document(number, words[number % 4]) for number in range(1, 2001)])
    database = deployment.client[deployment.database]
    database.command("profile", 2)
    store = app.extensions["slurm_proxy"].store
    found = store.find_page(TaskFilter(state=("UNKNOWN",)), usernames, limit=20).tasks
    database.command("profile", 0)
    assert len(found) == 20
    commands = list(database["system.profile"].find({"ns": f"{deployment.database}.jobs"}))
    assert 20 <= sum(command.get("docsExamined", 0) for command in commands) < 100
    assert not any(command.get("hasSortStage") for command in commands)


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_older_records_of_every_form_are_listed_once(deployment: Deployment, order: str, limit: int) -> None:
    app = deployment.start()
    times = [NAIVE_NOW, NAIVE_NOW, YEARS_AGO, "2024-05-01 10:00:00", "never", None, 7, DatetimeMS(2**60)]
    older = [older_document(number, "FAILED", created_at=at) for number, at in enumerate(times, 1)]
    del older[5]["created_at"]
    older += [
        older_document("77", "COMPLETED"),
        older_document(9, "FAILED", _id="a text"),
        older_document(None),
    ]
    older += [older_document(10, "FAILED", task={"uuid": 4711, "username": "alice", "slurm": "none"})]
    deployment.tasks.insert_many(older)
    assert app.test_client().post("/submit", json={"task": make_task()}).status_code == 200
    found: list[dict[str, Any]] = []
    path = f"/monitor?order={order}&limit={limit}"
    page = get(app, path)
    while found.extend(page["tasks"]) or page["next"]:  # type: ignore[func-returns-value]
        page = get(app, f"{path}&after={page['next']}")
    uuids = [str(document["task"]["uuid"]) for document in older]
    assert len(found) == len(uuids) + 1
    assert {*uuids} <= {task["uuid"] for task in found}
    assert {task["slurm_job_id"] for task in found} >= {77, 9, 10, None}
    failed = get(app, "/monitor?state=FAILED&limit=1000")["tasks"]
    assert sorted(task["slurm_job_id"] for task in failed) == [*range(1, 11)]
    batch = get(app, f"/monitor?uuid=4711&uuid={uuids[4]}&uuid=nothing")
    assert [task["uuid"] for task in batch["tasks"]] == ["4711", uuids[4]]
    assert batch["unknown"] == ["nothing"]


def test_of_two_older_records_with_one_uuid_a_list_by_uuids_has_the_newer_one(deployment: Deployment) -> None:
    app = deployment.start()
    task = make_task()
    deployment.tasks.insert_many(
        [
            older_document(1, "FAILED", task=task, created_at=YEARS_AGO),
            older_document(2, "COMPLETED", task=task, created_at=NAIVE_NOW),
        ]
    )
    [found] = get(app, f"/monitor?uuid={task['uuid']}")["tasks"]
    assert found["slurm_job_id"] == 2
    assert [one["slurm_job_id"] for one in get(app, "/monitor")["tasks"]] == [2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01 10:00:00", "2024-05-01T10:00:00+00:00"),
        ("2024-05-01T10:00:00.123456", "2024-05-01T10:00:00.123456+00:00"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00+00:00"),
        ("2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00+00:00"),
        ("2024-05-01", "2024-05-01T00:00:00+00:00"),
        ("yesterday", "1970-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+02:00", "1970-01-01T00:00:00+00:00"),
        ("", "1970-01-01T00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING"])
def test_an_older_record_with_its_times_as_text_shows_them_in_utc(
    deployment: Deployment, state: str, text: str, expected: str
) -> None:
    deployment.tasks.insert_one(older_document(4711, state, created_at=text, updated_at=text))
    shown = get(deployment.start(), "/monitor/slurm_job_id/4711")["monitor"]
    assert (shown["created_at"], shown["updated_at"]) == (expected, expected)


@pytest.mark.parametrize("job_id", [None, "", "12_3", "abc", -1, True, 2**32 - 2, str(2**32 - 1), 2**40])
def test_an_older_record_without_a_job_id_is_readable_by_its_uuid(
    deployment: Deployment, job_id: object
) -> None:
    document = older_document(job_id)
    deployment.tasks.insert_one(document)
    app = deployment.start()
    shown = get(app, f"/monitor/task_uuid/{document['task']['uuid']}")["monitor"]
    assert shown["slurm_job_id"] is None


def test_an_older_record_with_a_bare_task_is_readable(deployment: Deployment) -> None:
    task = {"uuid": new_uuid(), "username": "alice"}
    deployment.tasks.insert_one(older_document(4711, "COMPLETED", task=task))
    shown = get(deployment.start(), "/monitor/slurm_job_id/4711")
    assert shown["monitor"]["task"] == task
    assert shown["slurm"]["job_state"] == "COMPLETED"


@pytest.mark.parametrize("is_reversed", [False, True])
def test_two_older_records_with_one_uuid_are_found_by_uuid_and_by_job_id(
    deployment: Deployment, is_reversed: bool
) -> None:
    pair = two_with_one_uuid()
    deployment.tasks.insert_many(reversed(pair) if is_reversed else pair)
    app = deployment.start()
    uuid = pair[0]["task"]["uuid"]
    assert get(app, f"/monitor/task_uuid/{uuid}")["monitor"]["slurm_job_id"] == 12
    for job_id in (11, 12):
        shown = get(app, f"/monitor/slurm_job_id/{job_id}")["monitor"]
        assert (shown["slurm_job_id"], shown["task"]["uuid"]) == (job_id, uuid)


def test_a_uuid_of_older_records_is_refused_for_a_new_task(deployment: Deployment) -> None:
    older, newer = two_with_one_uuid()
    deployment.tasks.insert_many([older, newer])
    client = deployment.start().test_client()
    answer = client.post("/submit", json={"task": older["task"]})
    assert (answer.status_code, (answer.json or {})["code"]) == (400, "duplicate_uuid")
    assert (answer.json or {})["slurm_job_id"] == 12
    assert deployment.slurm.submitted == []


def test_taking_over_leaves_the_older_servers_fields_as_they_were(deployment: Deployment) -> None:
    documents = [
        *two_with_one_uuid(),
        older_document("x", "Done", task={"uuid": 7, "username": "alice"}, updated_at=NAIVE_NOW),
        older_document(3, None, task={"username": "alice"}),
    ]
    deployment.tasks.insert_many(documents)
    deployment.start()
    for document in documents:
        found = deployment.tasks.find_one({"_id": document["_id"]}) or {}
        kept = {name: found[name] for name in document}
        for name in ("created_at", "updated_at"):
            kept[name] = kept[name] and kept[name].replace(tzinfo=None)
        assert kept == document


def test_only_the_fields_that_the_documentation_names_are_added(deployment: Deployment) -> None:
    page = (ROOT / "docs" / "how-to" / "replace-the-older-server.md").read_text()
    (words,) = re.findall(r"The fields that slurm-proxy added [^.]*\.", page)
    documents = [older_document(number) for number in (1, 2, 3)]
    deployment.tasks.insert_many(documents)
    deployment.slurm.put(1, JobState.RUNNING)
    deployment.slurm.put(2, JobState.RUNNING)
    app = deployment.start()
    cycles = Cycles(app)
    cycles.run()
    deployment.slurm.put(1, JobState.COMPLETED, end_time=utc_now())
    assert app.test_client().delete("/monitor/slurm_job_id/2").status_code == 200
    cycles.run(timedelta(minutes=15))
    added = {name for document in deployment.tasks.find() for name in document} - set(documents[0])
    assert added == set(re.findall(r"`(\w+)`", words))


def test_a_second_start_changes_no_document(deployment: Deployment) -> None:
    deployment.tasks.insert_many([*two_with_one_uuid(), older_document(1, "COMPLETED")])
    deployment.start()
    before = list(deployment.tasks.find())
    deployment.start()
    assert list(deployment.tasks.find()) == before


def test_a_take_over_examines_no_document_of_a_job_that_has_ended(deployment: Deployment) -> None:
    deployment.tasks.insert_many([older_document(number) for number in range(1, 4)])
    deployment.tasks.insert_many([older_document(number, "COMPLETED") for number in range(4, 100)])
    deployment.start()
    deployment.tasks.update_many({}, {"$unset": {"uuid": ""}})
    for wanted, most in ((OPEN_OF_OLDER_SERVER, 3), (OF_EARLIER_VERSION, 0)):
        found = deployment.tasks.find(wanted).sort(NEWEST_FIRST).limit(1)
        statistics = found.explain()["executionStats"]
        assert statistics["totalDocsExamined"] <= most


def test_a_document_of_an_ended_job_is_not_changed(deployment: Deployment) -> None:
    documents = [older_document(1, "COMPLETED"), older_document("2", "FAILED", updated_at=NAIVE_NOW)]
    deployment.tasks.insert_many(documents)
    before = list(deployment.tasks.find())
    app = deployment.start()
    for document in documents:
        get(app, f"/monitor/task_uuid/{document['task']['uuid']}")
    Cycles(app).run()
    assert list(deployment.tasks.find()) == before


def test_a_document_that_the_older_server_adds_later_is_found_at_once(deployment: Deployment) -> None:
    app = deployment.start()
    added = older_document(2)
    deployment.tasks.insert_one(added)
    shown = get(app, f"/monitor/task_uuid/{added['task']['uuid']}")
    assert shown["monitor"]["slurm_job_id"] == 2
    answer = app.test_client().post("/submit", json={"task": added["task"]})
    assert (answer.json or {})["code"] == "duplicate_uuid"


@pytest.mark.parametrize("uuid", [7, "7"])
def test_a_uuid_that_was_stored_as_a_number_is_found_and_refused(
    deployment: Deployment, uuid: object
) -> None:
    deployment.tasks.insert_one(older_document(4711, "COMPLETED", task={"uuid": uuid, "username": "alice"}))
    app = deployment.start()
    assert get(app, "/monitor/task_uuid/7")["monitor"]["slurm_job_id"] == 4711
    answer = app.test_client().post("/submit", json={"task": make_task(uuid="7")})
    assert (answer.json or {})["code"] == "duplicate_uuid"


def test_a_document_that_the_older_server_adds_after_a_return_is_taken_over(deployment: Deployment) -> None:
    deployment.tasks.insert_one(older_document(1))
    deployment.start()
    added = older_document(2)
    deployment.tasks.insert_one(added)
    shown = get(deployment.start(), f"/monitor/task_uuid/{added['task']['uuid']}")
    assert shown["monitor"]["slurm_job_id"] == 2


def test_an_end_that_the_older_server_recorded_after_a_return_is_neither_polled_nor_announced(
    deployment: Deployment,
) -> None:
    deployment.tasks.insert_many([older_document(1), older_document(2)])
    for number in (1, 2):
        deployment.slurm.put(number, JobState.RUNNING)
    Cycles(deployment.start()).run()
    ended = {"slurm_job_state": "COMPLETED", "updated_at": NAIVE_NOW}
    deployment.tasks.update_one({"slurm_job_id": 1}, {"$set": ended})
    deployment.slurm.put(1, JobState.COMPLETED, end_time=utc_now())
    app = deployment.start()
    Cycles(app).run(timedelta(minutes=5))  # when the lease of the first server has ended
    assert deployment.tasks.distinct("slurm_job_id", {"is_open": True}) == [2]
    assert messages(deployment, 1) == [0]


def test_several_servers_that_start_at_once_take_over_each_document_once(deployment: Deployment) -> None:
    pairs = [two_with_one_uuid() for _ in range(2000)]
    deployment.tasks.insert_many([document for pair in pairs for document in pair])
    stores = [build_services(read_settings(deployment.settings), deployment.slurm).store for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.prepare(), stores))
    found = stores[0].find_by_uuids([newer["task"]["uuid"] for _, newer in pairs])
    for store in stores:
        store.close()
    keys = [document["uuid"] for document in deployment.tasks.find({}, {"uuid": 1})]
    assert len(set(keys)) == 4000
    assert {record.slurm_job_id for record in found.values()} == {12}
    assert len(found) == 2000


def test_records_of_an_earlier_version_of_this_service_get_their_key(deployment: Deployment) -> None:
    client = deployment.start().test_client()
    task = make_task()
    assert client.post("/submit", json={"task": task}).status_code == 200
    deployment.tasks.update_one({}, {"$unset": {"uuid": ""}})
    before = deployment.tasks.find_one() or {}
    app = deployment.start()
    assert deployment.tasks.find_one() == {**before, "uuid": task["uuid"]}
    assert get(app, f"/monitor/task_uuid/{task['uuid']}")["monitor"]["task"] == task


def messages(deployment: Deployment, *job_ids: object) -> list[int]:
    """Return how many messages each of the jobs has led to."""
    found = deployment.tasks.find({"slurm_job_id": {"$in": job_ids}}).sort("created_at")
    return [len(document.get("notifications", ())) for document in found]


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=20)])
@pytest.mark.parametrize("job_id", [4711, "4711"])
@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "Done", None, "UNKNOWN"])
def test_an_older_job_that_has_not_ended_is_followed_and_announced_once(
    deployment: Deployment, state: object, job_id: object, age: timedelta
) -> None:
    """A registered job may be much older than its record."""
    submitted = utc_now() - age
    deployment.slurm.put(4711, JobState.RUNNING, submit_time=submitted, start_time=submitted)
    document = older_document(job_id, state)
    deployment.tasks.insert_one(document)
    app = deployment.start()
    cycles = Cycles(app)
    cycles.run()
    path = f"/monitor/task_uuid/{document['task']['uuid']}"
    assert get(app, path)["monitor"]["slurm_job_state"] == "RUNNING"
    deployment.slurm.put(4711, JobState.FAILED, end_time=utc_now(), exit_code=3)
    for _ in range(3):
        cycles.run()
    shown = get(app, path)
    assert (shown["slurm"]["job_state"], shown["slurm"]["exit_code"]) == ("FAILED", 3)
    assert [item["event"] for item in shown["monitor"]["notifications"]] == ["end"]
    Cycles(deployment.start()).run()
    assert messages(deployment, job_id) == [1]


def test_an_older_job_that_ended_while_no_server_ran_is_announced(deployment: Deployment) -> None:
    deployment.tasks.insert_one(older_document(4711))
    deployment.slurm.put(4711, JobState.COMPLETED, end_time=utc_now() - timedelta(hours=20))
    deployment.slurm.forget(4711)
    Cycles(deployment.start()).run()
    assert messages(deployment, 4711) == [1]


@pytest.mark.parametrize("state", ["RUNNING", "finished", None])
def test_an_older_job_that_ended_long_ago_gets_its_end_without_a_message(
    deployment: Deployment, state: object
) -> None:
    submitted = YEARS_AGO.astimezone(UTC)
    ended = submitted + timedelta(hours=3)
    deployment.tasks.insert_one(older_document(4711, state, created_at=YEARS_AGO))
    deployment.slurm.put(4711, JobState.COMPLETED, submit_time=submitted, end_time=ended)
    deployment.slurm.forget(4711)
    app = deployment.start()
    Cycles(app).run()
    assert get(app, "/monitor/slurm_job_id/4711")["monitor"]["slurm_job_state"] == "COMPLETED"
    assert messages(deployment, 4711) == [0]


@pytest.mark.parametrize("job_id", [2**32 - 3, str(2**32 - 2), 2**32 - 1])
def test_an_older_record_whose_id_no_job_can_have_is_not_polled(
    deployment: Deployment, job_id: object
) -> None:
    """slurmrestd of 24.11 refuses a whole request for states that has one such id."""
    deployment.tasks.insert_many([older_document(4711), older_document(job_id)])
    deployment.slurm.put(4711, JobState.RUNNING, submit_time=utc_now())
    Cycles(deployment.start()).run()
    assert deployment.slurm.polled_ids == {4711}


@pytest.mark.parametrize(("created_at", "expected"), [(YEARS_AGO, 0), (NAIVE_NOW, 1)])
@pytest.mark.parametrize("state", ["RUNNING", "finished", None])
def test_an_older_job_that_slurm_does_not_know_is_unknown_and_polled_no_more(
    deployment: Deployment, state: object, created_at: datetime, expected: int
) -> None:
    deployment.tasks.insert_one(older_document(4711, state, created_at=created_at))
    app = deployment.start()
    cycles = Cycles(app)
    cycles.run()
    cycles.run(timedelta(minutes=15))
    cycles.run()
    assert get(app, "/monitor/slurm_job_id/4711")["monitor"]["slurm_job_state"] == "UNKNOWN"
    assert messages(deployment, 4711) == [expected]
    assert deployment.slurm.polled_ids == set()


def test_another_job_under_the_id_of_an_older_record_is_not_taken_for_its_job(
    deployment: Deployment,
) -> None:
    deployment.tasks.insert_one(older_document(4711, created_at=YEARS_AGO))
    deployment.slurm.put(4711, JobState.FAILED, end_time=utc_now())
    app = deployment.start()
    cycles = Cycles(app)
    cycles.run()
    cycles.run(timedelta(minutes=15))
    assert get(app, "/monitor/slurm_job_id/4711")["monitor"]["slurm_job_state"] == "UNKNOWN"


def test_an_older_job_that_has_ended_is_never_announced(deployment: Deployment) -> None:
    for number, state in enumerate((state for state in JobState if state.is_final), 1):
        deployment.tasks.insert_one(older_document(number, state.value, updated_at=NAIVE_NOW))
        deployment.slurm.put(number, state, end_time=utc_now())
    cycles = Cycles(deployment.start())
    cycles.run()
    cycles.run()
    assert deployment.tasks.count_documents({"notifications.0": {"$exists": True}}) == 0
    assert deployment.tasks.count_documents({"is_open": True}) == 0


def test_both_jobs_of_one_uuid_are_announced_with_ids_of_their_own(deployment: Deployment) -> None:
    deployment.tasks.insert_many(two_with_one_uuid())
    for number in (11, 12):
        deployment.slurm.put(number, JobState.COMPLETED, end_time=utc_now())
    cycles = Cycles(deployment.start())
    cycles.run()
    cycles.run()
    assert messages(deployment, "11", 12) == [1, 1]
    assert len(deployment.tasks.distinct("notifications.id")) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "Alice.Smith@example"},
        {"notification": {**make_email(), "comment": "of the older server"}},
        {"uuid": "odd uuid"},
    ],
)
def test_a_task_that_would_be_refused_today_is_announced_all_the_same(
    deployment: Deployment, fields: dict[str, Any]
) -> None:
    task = make_task(**{"notification": make_email(), **fields})
    deployment.tasks.insert_one(older_document(4711, task=task))
    deployment.slurm.put(4711, JobState.COMPLETED, end_time=utc_now(), username=task["username"])
    Cycles(deployment.start()).run()
    assert messages(deployment, 4711) == [1]


def test_an_older_job_can_be_cancelled(deployment: Deployment) -> None:
    document = older_document("4711")
    deployment.tasks.insert_one(document)
    deployment.slurm.put(4711, JobState.RUNNING)
    answer = deployment.start().test_client().post(f"/monitor/task_uuid/{document['task']['uuid']}/cancel")
    assert answer.status_code == 200
    assert deployment.slurm.jobs[4711].job_state is JobState.CANCELLED


_RECENT: dict[str, Any] = {"state": "FAILED", "updated_at": NAIVE_NOW}


def _without(name: str) -> dict[str, Any]:
    document = older_document(4711, **_RECENT)
    del document[name]
    return document


def _odd_documents() -> Iterator[dict[str, Any]]:
    """Yield documents with missing fields and with fields of unexpected types."""
    yield from map(_without, ("slurm_username", "slurm_job_id", "slurm_job_state", "task", "created_at"))
    for job_id in ("abc", " 12 ", "+13", 14.5, float("nan"), float("inf"), [1], b"15", 2**70 * 1.0):
        yield older_document(job_id, **_RECENT)
        yield older_document(job_id)
    for task in (None, "text", [{"uuid": "x"}], {}, {"uuid": None}, {"uuid": {"a": 1}}, {"uuid": b"abc"}):
        yield {**older_document(4711), "task": task}
    for value in (b"bytes", NAIVE_NOW, ObjectId(), float("nan"), Regex("a")):
        yield older_document(4711, task={"uuid": new_uuid(), "username": "alice", "remark": value})
    for username in (None, 5, ["alice"]):
        yield {**older_document(4711), "slurm_username": username}
    for id_ in ({"a": 1}, b"id", "text", 5):
        yield {**older_document(4711), "_id": id_}
    for moment in ("2020-01-01", 7, datetime(1, 1, 1, tzinfo=UTC), DatetimeMS(10**15)):
        yield {**older_document(4711), "created_at": moment}
        yield {**older_document(4711, **_RECENT), "updated_at": moment}


def test_odd_older_records_hide_no_other_and_are_listed(deployment: Deployment) -> None:
    documents = list(_odd_documents())
    deployment.tasks.insert_many([*documents, good := older_document(9999)])
    deployment.slurm.put(9999, JobState.RUNNING)
    app = deployment.start()
    cycles = Cycles(app)
    cycles.run()
    listed = [
        record
        for state in ("RUNNING", "FAILED")
        for record in get(app, f"/monitor/slurm_job_state/{state}")["monitor"]
    ]
    assert len(listed) == len(documents)  # with the good one, and without the one that has no state
    deployment.slurm.put(9999, JobState.COMPLETED, end_time=utc_now())
    cycles.run()
    cycles.run()
    assert get(app, f"/monitor/task_uuid/{good['task']['uuid']}")["monitor"]["slurm_job_state"] == "COMPLETED"
    assert messages(deployment, 9999) == [1]


def test_a_record_whose_notifications_were_lost_hides_no_other_from_a_list(deployment: Deployment) -> None:
    deployment.tasks.insert_many([{**older_document(1), "notifications": None}, older_document(2)])
    listed = get(deployment.start(), "/monitor/slurm_job_state/RUNNING")["monitor"]
    assert [record["slurm_job_id"] for record in listed] == [2]


def test_an_older_record_with_an_odd_task_is_readable_by_its_job_id(deployment: Deployment) -> None:
    deployment.tasks.insert_one({**older_document(4711), "task": None})
    assert get(deployment.start(), "/monitor/slurm_job_id/4711")["monitor"]["task"] == {}


@pytest.mark.parametrize("keys", [[("updated_at", -1)], [("slurm_job_id", 1), ("created_at", -1)]])
@pytest.mark.parametrize("name", [None, "by_hand"])
def test_an_index_that_exists_in_another_form_does_not_stop_the_start(
    deployment: Deployment, keys: list[tuple[str, int]], name: str | None
) -> None:
    options: dict[str, Any] = {"name": name} if name else {"unique": True}
    deployment.tasks.insert_one(older_document(4711))
    deployment.tasks.create_index(keys, **options)
    get(deployment.start(), "/monitor/slurm_job_id/4711")
    assert deployment.tasks.index_information()["uuid_1"]["unique"]


def test_an_index_in_place_of_a_unique_one_is_named_at_the_start(deployment: Deployment) -> None:
    deployment.tasks.create_index("uuid")
    with pytest.raises(StoreRefused, match="drop the index uuid_1 of the collection jobs"):
        deployment.start()
