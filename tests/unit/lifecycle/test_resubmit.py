"""Submit the task of a record again, with changes, as a new task."""

import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.errors import (
    DuplicateUuid,
    Forbidden,
    IdempotencyKeyReused,
    InvalidRequest,
    NoSuchTask,
    SlurmAmbiguous,
    SlurmRefused,
    TooManyJobs,
)
from app.job_state import JobState
from app.lifecycle.resubmit import ResubmissionCall
from app.models.caller import OPERATOR, ORDINARY_SCOPES, Caller, Grant, Scope
from app.models.json_body import MAX_VALUES
from app.models.record import utc_now
from tests.support.answers import body_of
from tests.support.lifecycle import MINUTE, Service, left_open, watch
from tests.support.tasks import make_task, new_uuid

ALICE = Caller("alice", (Grant(scopes=ORDINARY_SCOPES, users=("alice",)),))


def resubmit(
    service: Service,
    source: str,
    body: dict[str, Any] | None = None,
    key: str | None = None,
    *,
    caller: Caller = OPERATOR,
    is_dry_run: bool = False,
) -> dict[str, Any]:
    call = ResubmissionCall(body or {}, key, is_dry_run)
    return body_of(service.resubmission.resubmit_by_uuid(caller, source, call))


def lineage(service: Service, task_uuid: str, caller: Caller = OPERATOR) -> tuple[str | None, list[str]]:
    monitor = body_of(service.lookup.find_by_uuid(caller, task_uuid))["monitor"]
    return monitor.get("resubmitted_from"), monitor.get("resubmitted_as", [])


def test_resubmissions_that_the_caller_may_not_read_hide_no_older_ones(service: Service) -> None:
    task, _ = service.submit()
    older = resubmit(service, task["uuid"])["uuid"]
    for _ in range(100):
        resubmit(service, task["uuid"], {"task": {"username": "bob"}})
    assert lineage(service, task["uuid"], ALICE)[1] == [older]
    assert len(lineage(service, task["uuid"])[1]) == 100


def test_a_task_is_submitted_again_under_a_new_uuid(service: Service) -> None:
    task, job_id = service.submit(own={"z": 1, "a": [1.0]})
    answer = resubmit(service, task["uuid"])
    assert uuid.UUID(answer["uuid"]).version == 4
    assert answer["resubmitted_from"] == task["uuid"]
    assert answer["slurm_username"] == "alice"
    assert answer["slurm_job_id"] != job_id
    record = service.store.find_by_uuids([answer["uuid"]])[answer["uuid"]]
    assert record.task == {**task, "uuid": answer["uuid"]}
    assert list(record.task) == list(task)
    assert service.record(task).slurm_job_id == job_id
    first, second = [task for task, _, _ in service.slurm.submitted]
    assert second == first.model_copy(update={"uuid": answer["uuid"]})


def test_a_patch_merges_nested_values_and_deletes_with_null(service: Service) -> None:
    task, _ = service.submit()
    patch = {"slurm": {"mem": 200, "nodes": None, "partition": "long"}, "params": ["again"], "own": {"a": 1}}
    answer = resubmit(service, task["uuid"], {"task": patch})
    sent = service.slurm.submitted[-1][0].slurm
    assert (sent.mem, sent.nodes, sent.partition, sent.cpus_per_task) == (200, None, "long", 1)
    stored = service.store.find_by_uuids([answer["uuid"]])[answer["uuid"]].task
    slurm = {**task["slurm"], "mem": 200, "partition": "long"}
    del slurm["nodes"]
    assert stored == {
        **task,
        "uuid": answer["uuid"],
        "slurm": slurm,
        "params": ["again"],
        "own": {"a": 1},
    }
    assert service.record(task).task == task


@pytest.mark.parametrize(
    ("patch", "faults"),
    [
        ({"slurm": {"mem": "lots"}}, ["task.slurm.mem: must be megabytes"]),
        ({"slurm": 5}, ["task.slurm: must be an object"]),
        ({"slurm": {"memm": 5}}, ["task.slurm.memm: is not known; did you mean mem?"]),
        (
            {"slurm": {"nodes": {"a": 1}}, "cwd": 7},
            ["task.cwd: must be an abs", "task.slurm.nodes: must be a"],
        ),
        ({"dirs": None, "cwd": None}, ["task.cwd: is required", "task.dirs: is required"]),
        ({"uuid": 5}, ["task.uuid: must be a string"]),
    ],
)
def test_a_patch_that_makes_the_task_invalid_is_refused_with_every_path(
    service: Service, patch: dict[str, Any], faults: list[str]
) -> None:
    task, _ = service.submit()
    with pytest.raises(InvalidRequest) as caught:
        resubmit(service, task["uuid"], {"task": patch})
    assert len(caught.value.faults) == len(faults)
    for fault, beginning in zip(caught.value.faults, faults, strict=True):
        assert fault.startswith(beginning)
    assert len(service.slurm.submitted) == 1


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"task": 1}, "task: must be an object"),
        ({"task": None}, "task: must be an object"),
        ({"uuid": 1}, "uuid: must be a string of 1 to 128"),
        ({"taks": {}}, "taks: is not known; known here: uuid, task"),
        ({"uuid": "a", "task": {"uuid": "b"}}, "task.uuid: must be left out or be the same as uuid"),
        ({"uuid": "first"}, "uuid: must not be the uuid of the task that is resubmitted"),
        ({"task": {"uuid": "first"}}, "task.uuid: must not be the uuid of the task"),
        (
            {"task": {"own": "x" * 131_000, **{f"k{n}": "x" * 131_000 for n in range(8)}}},
            "task: with its chang",
        ),
        ({"task": {"own": [1] * MAX_VALUES}}, f"body: has more than {MAX_VALUES} values"),
    ],
)
def test_a_body_that_is_not_valid_is_refused(service: Service, body: dict[str, Any], fault: str) -> None:
    service.submit(uuid="first")
    with pytest.raises(InvalidRequest) as caught:
        resubmit(service, "first", body)
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize("body", [{"uuid": "second"}, {"task": {"uuid": "second"}}])
def test_the_new_uuid_may_be_named_beside_the_patch_or_in_it(service: Service, body: dict[str, Any]) -> None:
    task, _ = service.submit()
    assert resubmit(service, task["uuid"], body)["uuid"] == "second"
    both = {"uuid": "third", "task": {"uuid": "third"}}
    assert resubmit(service, task["uuid"], both)["uuid"] == "third"
    assert resubmit(service, task["uuid"], {"uuid": "fourth", "task": {"uuid": None}})["uuid"] == "fourth"
    with pytest.raises(DuplicateUuid) as caught:
        resubmit(service, task["uuid"], body)
    assert caught.value.slurm_job_id in service.slurm.jobs


@pytest.mark.parametrize("body", [{}, {"uuid": "named"}, {"task": {"slurm": {"mem": 200}}}])
def test_a_retry_with_its_key_makes_one_task_and_gets_the_same_answer(
    service: Service, body: dict[str, Any]
) -> None:
    task, _ = service.submit()
    first = resubmit(service, task["uuid"], body, "a key")
    assert resubmit(service, task["uuid"], body, "a key") == first
    assert resubmit(service, task["uuid"], body, "a key", is_dry_run=True) == first
    assert len(service.slurm.submitted) == 2
    assert lineage(service, task["uuid"])[1] == [first["uuid"]]
    assert resubmit(service, task["uuid"], {}, "another key")["uuid"] != first["uuid"]


def test_two_callers_with_the_same_key_get_tasks_of_their_own(service: Service) -> None:
    task, _ = service.submit()
    first = resubmit(service, task["uuid"], key="k")
    assert resubmit(service, task["uuid"], key="k", caller=ALICE)["uuid"] != first["uuid"]


def test_simultaneous_requests_with_one_key_make_one_task(service: Service) -> None:
    task, _ = service.submit()
    barrier = threading.Barrier(8)

    def ask(_: int) -> str:
        barrier.wait()
        try:
            return str(resubmit(service, task["uuid"], key="k")["uuid"])
        except SlurmAmbiguous as error:  # the first request is still under way
            return str(re.findall("[0-9a-f-]{36}", str(error))[0])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert len(service.slurm.submitted) == 2


def test_a_key_stands_for_one_source_and_one_patch(service: Service) -> None:
    task, _ = service.submit()
    twin, _ = service.submit(**{**task, "uuid": new_uuid()})
    first = resubmit(service, task["uuid"], key="k")
    for source, body in ((task, {"task": {"slurm": {"mem": 200}}}), (twin, {}), (task, {"uuid": "x"})):
        with pytest.raises(IdempotencyKeyReused):
            resubmit(service, source["uuid"], body, "k")
    with pytest.raises(IdempotencyKeyReused):
        service.submitter.submit(OPERATOR, {"task": {**task, "uuid": first["uuid"]}}, "k")
    assert len(service.slurm.submitted) == 3


def test_a_refused_resubmission_can_be_repeated_with_its_key(service: Service) -> None:
    task, _ = service.submit()
    service.slurm.failure = SlurmRefused("no")
    with pytest.raises(SlurmRefused):
        resubmit(service, task["uuid"], key="k")
    assert lineage(service, task["uuid"]) == (None, [])
    assert resubmit(service, task["uuid"], key="k")["slurm_job_id"]


def test_the_lineage_is_shown_on_both_records(service: Service) -> None:
    task, _ = service.submit()
    assert lineage(service, task["uuid"]) == (None, [])
    second = resubmit(service, task["uuid"])["uuid"]
    third = resubmit(service, task["uuid"])["uuid"]
    fourth = resubmit(service, second)["uuid"]
    assert lineage(service, task["uuid"]) == (None, [third, second])
    assert lineage(service, second) == (task["uuid"], [fourth])
    assert lineage(service, fourth) == (second, [])


def test_the_lineage_shows_only_tasks_that_the_caller_may_read(service: Service) -> None:
    task, _ = service.submit()
    for_bob = resubmit(service, task["uuid"], {"task": {"username": "bob"}})["uuid"]
    own = resubmit(service, task["uuid"])["uuid"]
    assert lineage(service, task["uuid"], ALICE)[1] == [own]
    assert lineage(service, task["uuid"])[1] == [own, for_bob]


def test_another_users_task_is_answered_like_an_unknown_one(service: Service) -> None:
    task, job_id = service.submit(username="bob")
    for source in (task["uuid"], "unknown"):
        with pytest.raises(NoSuchTask, match=f"^task_uuid: no task {source} is recorded here$"):
            resubmit(service, source, {"task": 5}, caller=ALICE)
    for source in (job_id, 99):
        with pytest.raises(NoSuchTask, match=f"^slurm_job_id: no job {source} is monitored here$"):
            service.resubmission.resubmit_by_job_id(ALICE, str(source), ResubmissionCall({}))


@pytest.mark.parametrize("scopes", [{Scope.READ}, {Scope.SUBMIT}, {Scope.CANCEL}])
def test_a_resubmission_needs_the_scopes_to_read_and_to_submit(service: Service, scopes: set[Scope]) -> None:
    task, _ = service.submit()
    caller = Caller("limited", (Grant(scopes=frozenset(scopes), users="any"),))
    with pytest.raises(Forbidden):
        resubmit(service, task["uuid"], caller=caller)


def test_the_grants_apply_to_the_new_task(service: Service) -> None:
    grant = Grant(scopes=ORDINARY_SCOPES, users=("alice",), partitions=("debug",))
    limited = Caller("limited", (grant,))
    task, _ = service.submit(slurm={"partition": "long"})
    with pytest.raises(Forbidden, match=r"task\.slurm\.partition: must be set to one or more of debug"):
        resubmit(service, task["uuid"], caller=limited)
    with pytest.raises(Forbidden, match=r"task\.username: limited may not submit for bob"):
        resubmit(service, task["uuid"], {"task": {"username": "bob"}}, caller=limited)
    allowed = {"task": {"slurm": {"partition": "debug"}}}
    assert resubmit(service, task["uuid"], allowed, caller=limited)["slurm_job_id"]


def test_the_limit_of_open_tasks_applies(service: Service) -> None:
    task, _ = service.submit()
    service.submitter._max_open_tasks = 1
    with pytest.raises(TooManyJobs):
        resubmit(service, task["uuid"])
    assert lineage(service, task["uuid"])[1] == []


def test_a_dry_run_shows_the_new_task_and_makes_none(service: Service) -> None:
    task, _ = service.submit(enviroment="A=1")
    answer = resubmit(service, task["uuid"], {"uuid": "new", "task": {"cmd": "ls"}}, is_dry_run=True)
    assert answer["valid"] is True
    assert answer["task"] == {**task, "uuid": "new", "cmd": "ls"}
    assert answer["resubmitted_from"] == task["uuid"]
    assert len(answer["warnings"]) == 1
    assert len(service.slurm.submitted) == 1
    assert lineage(service, task["uuid"])[1] == []


def test_a_task_without_a_job_can_be_resubmitted(service: Service) -> None:
    task = left_open(service, exists=False)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(task).submission_error
    assert resubmit(service, task["uuid"])["slurm_job_id"]


def test_a_registered_job_can_be_resubmitted_if_its_task_is_complete(service: Service) -> None:
    service.slurm.put(77, JobState.COMPLETED)
    task = make_task()
    watch(service, 77, task=task)
    answer = body_of(service.resubmission.resubmit_by_job_id(OPERATOR, "77", ResubmissionCall({})))
    assert answer["resubmitted_from"] == task["uuid"]
    assert answer["slurm_job_id"] != 77


def test_resubmitting_a_registered_job_names_the_fields_missing_in_its_task(service: Service) -> None:
    service.slurm.put(77, JobState.RUNNING)
    watch(service, 77, task={"uuid": "short"})
    with pytest.raises(InvalidRequest) as caught:
        resubmit(service, "short")
    assert caught.value.faults == [f"task.{name}: is required" for name in ("name", "cwd", "dirs", "slurm")]
    whole = {name: value for name, value in make_task().items() if name not in ("uuid", "username")}
    assert resubmit(service, "short", {"task": whole})["resubmitted_from"] == "short"


def test_only_the_newest_record_of_a_job_id_is_resubmitted(service: Service) -> None:
    service.submit(uuid="old")
    _, job_id = service.submit(uuid="new")
    answer = body_of(service.resubmission.resubmit_by_job_id(OPERATOR, str(job_id), ResubmissionCall({})))
    assert answer["resubmitted_from"] == "new"
    with pytest.raises(InvalidRequest, match="slurm_job_id: must be a Slurm job id"):
        service.resubmission.resubmit_by_job_id(OPERATOR, "x", ResubmissionCall({}))
