"""Dependencies on tasks are translated when a task is submitted."""

from typing import Any

import pytest

from app.errors import InvalidRequest, SlurmProxyError, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.resubmit import ResubmissionCall
from app.models.caller import OPERATOR, ORDINARY_SCOPES, Caller, Grant
from app.models.record import utc_now
from tests.support.answers import body_of
from tests.support.lifecycle import MINUTE, Service, left_open
from tests.support.tasks import make_task

ALICE = Caller("alice", (Grant(scopes=ORDINARY_SCOPES, users=("alice",)),))


def task_after(dependency: str, **fields: Any) -> dict[str, Any]:
    return make_task(slurm={"dependency": dependency}, **fields)


def translate(service: Service, dependency: str, caller: Caller = OPERATOR) -> str | None:
    """Return what Slurm gets for a dependency, which a dry run shows, too."""
    task = task_after(dependency)
    shown = body_of(service.submitter.dry_run(caller, {"task": task}))["slurm"]["job"].get("dependency")
    service.submitter.submit(caller, {"task": task})
    sent = service.slurm.submitted[-1][0].slurm.dependency
    assert sent == shown
    assert service.record(task).task == task
    return sent


def fault_of(service: Service, dependency: str, caller: Caller = OPERATOR) -> list[str]:
    """Return the faults of a dependency, which leave no record behind."""
    task = task_after(dependency)
    faults = []
    for use_case in (service.submitter.submit, service.submitter.dry_run):
        with pytest.raises(InvalidRequest) as caught:
            use_case(caller, {"task": task})
        faults.append(caught.value.faults)
    assert faults[0] == faults[1]
    assert service.store.find_by_uuids([task["uuid"]]) == {}
    return [fault.removeprefix("task.slurm.dependency: ") for fault in faults[0]]


def end(service: Service, uuid: str, state: JobState, **fields: Any) -> int:
    """Submit a task whose job ends at once, and is forgotten by slurmctld after a poll."""
    _, job_id = service.submit(uuid=uuid)
    service.move(job_id, state, **fields)
    service.slurm.forget(job_id)
    return job_id


def test_uuids_become_the_jobs_of_their_tasks(service: Service) -> None:
    _, a = service.submit(uuid="a")
    _, b = service.submit(uuid="b:c")
    assert translate(service, "afterok:a") == f"afterok:{a}"
    assert translate(service, "afterok:a:b:c") == f"afterok:{a},afterok:{b}"
    assert translate(service, "afterany:123:a,afternotok:b:c") == f"afterany:123,afterany:{a},afternotok:{b}"
    assert translate(service, "after:a+5:b:c?singleton") == f"after:{a}+5?after:{b}+5?singleton"
    assert translate(service, "AFTERCORR:a") == f"aftercorr:{a}"


@pytest.mark.parametrize("text", ["afterok:1:2_3,singleton", "4711", "after:1+2?afterok:3", "what"])
def test_a_dependency_on_jobs_alone_is_not_changed(service: Service, text: str) -> None:
    assert translate(service, text) == text


def test_an_unknown_uuid_is_named_and_another_users_is_unknown(service: Service) -> None:
    service.submit(uuid="of-bob", username="bob")
    service.submit(uuid="mine")
    for uuid in ("nobody", "of-bob"):
        assert fault_of(service, f"afterok:mine:{uuid}", ALICE) == [f"no task {uuid} is recorded here"]
    assert fault_of(service, "afterok:x:y") == ["no task x is recorded here", "no task y is recorded here"]
    assert translate(service, "afterok:of-bob") is not None


def test_a_uuid_that_the_caller_may_not_read_does_not_hide_one_that_the_caller_may(service: Service) -> None:
    service.submit(uuid="a:1", username="bob")
    _, job_id = service.submit(uuid="a")
    assert translate(service, "afterok:a:1", ALICE) == f"afterok:{job_id},afterok:1"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("afterokay:mine", "must have a kind before each colon, not afterokay; did you mean afterok?"),
        (
            "afterok:mine:",
            "must have a job or a task after each colon, and minutes after each +, at most 9999999",
        ),
        ("afterok:mine,afterok:1?afterok:2", "must not have both , (all) and ? (any)"),
        ("afterok:" + ":".join(["x"] * 4000), "names too many tasks"),
    ],
)
def test_a_dependency_that_cannot_be_read_is_refused(service: Service, text: str, fault: str) -> None:
    service.submit(uuid="mine")
    assert fault_of(service, text) == [fault]


def test_a_task_without_a_job_is_an_error(service: Service) -> None:
    task = left_open(service, exists=False)
    (fault,) = fault_of(service, f"afterok:{task['uuid']}")
    assert fault == f"it is not known yet whether task {task['uuid']} has a job; try again later"
    service.reconcile(utc_now() + 3 * MINUTE)
    (fault,) = fault_of(service, f"afterok:{task['uuid']}")
    assert fault == f"task {task['uuid']} has no job: its submission failed"


def test_a_task_cannot_wait_for_itself(service: Service) -> None:
    with pytest.raises(InvalidRequest, match=r"task\.slurm\.dependency: a task must not wait for itself"):
        service.submitter.submit(OPERATOR, {"task": task_after("afterok:me", uuid="me")})
    assert service.store.find_by_uuids(["me"]) == {}


FAILED, DONE, LOST = JobState.FAILED, JobState.COMPLETED, JobState.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "state", "fault"),
    [
        ("afterok", DONE, None),
        ("afterok", FAILED, "task a ended as FAILED"),
        ("afterok", JobState.CANCELLED, "task a ended as CANCELLED"),
        ("afternotok", DONE, "task a ended as COMPLETED"),
        ("afternotok", JobState.TIMEOUT, None),
        ("afterany", FAILED, None),
        ("after", FAILED, None),
        ("afterburstbuffer", DONE, None),
        ("aftercorr", DONE, None),
        ("aftercorr", FAILED, "task a ended as FAILED"),
        ("expand", DONE, "the job of task a has ended"),
    ],
)
def test_a_task_that_has_ended_is_judged_by_its_record(
    service: Service, kind: str, state: JobState, fault: str | None
) -> None:
    end(service, "a", state)
    if fault is None:
        assert translate(service, f"{kind}:a") is None
        assert translate(service, f"{kind}:a,afterok:4711") == "afterok:4711"
    else:
        assert fault_of(service, f"{kind}:a,afterok:4711") == [f"can never be fulfilled: {fault}"]


def test_a_dependency_is_judged_by_the_record_when_slurm_reuses_the_job_id(service: Service) -> None:
    job_id = end(service, "a", FAILED)
    service.slurm.put(job_id, JobState.RUNNING, username="bob", comment="another job")
    assert fault_of(service, "afterok:a") == ["can never be fulfilled: task a ended as FAILED"]


def test_an_unknown_end_fulfils_only_what_any_end_fulfils(service: Service) -> None:
    _, job_id = service.submit(uuid="a")
    service.slurm.forget(job_id, accounted=False)
    for minutes in (0, 20):
        service.refresh(utc_now() + minutes * MINUTE)
    assert service.store.find_by_uuids(["a"])["a"].slurm_job_state is LOST
    assert translate(service, "afterany:a") is None
    for kind in ("afterok", "afternotok"):
        assert fault_of(service, f"{kind}:a") == ["can never be fulfilled: it is unknown how task a ended"]


def test_one_alternative_that_is_fulfilled_or_possible_suffices(service: Service) -> None:
    end(service, "failed", FAILED)
    end(service, "done", DONE)
    _, job_id = service.submit(uuid="open")
    assert translate(service, "afterok:failed?afterok:done?afterok:open") is None
    assert translate(service, "afterok:failed?afterok:open") == f"afterok:{job_id}"
    assert translate(service, "afterok:failed?afterok:4711") == "afterok:4711"
    assert fault_of(service, "afterok:failed?afternotok:done") == [
        "can never be fulfilled: task failed ended as FAILED",
        "can never be fulfilled: task done ended as COMPLETED",
    ]


def test_minutes_after_a_start_are_waited_for_although_the_job_has_ended(service: Service) -> None:
    job_id = end(service, "a", DONE, start_time=utc_now() - 10 * MINUTE, end_time=utc_now())
    assert translate(service, "after:a+30") == f"after:{job_id}+30"
    assert translate(service, "after:a+5") is None


def test_the_longest_delay_after_a_start_is_waited_for(service: Service) -> None:
    job_id = end(service, "begun", JobState.COMPLETED, start_time=utc_now())
    assert translate(service, "after:begun+9999999") == f"after:{job_id}+9999999"


def test_the_jobs_are_read_only_if_the_last_poll_is_old(service: Service) -> None:
    _, job_id = service.submit(uuid="a")
    service.monitor.run_cycle(service.store.now())
    assert translate(service, "afterok:a") == f"afterok:{job_id}"
    assert "read_jobs" not in service.slurm.calls
    service.store.update_leader_report("here", {"finished_at": (utc_now() - MINUTE).isoformat()})
    service.slurm.put(job_id, FAILED)
    assert fault_of(service, "afterok:a") == ["can never be fulfilled: task a ended as FAILED"]
    assert "read_jobs" in service.slurm.calls


def test_a_job_that_slurm_has_forgotten_before_a_poll_saw_its_end_is_no_guess(service: Service) -> None:
    _, job_id = service.submit(uuid="a")
    service.slurm.forget(job_id)
    task = task_after("afterok:a")
    with pytest.raises(SlurmUnavailable, match="the end of task a is not recorded yet; try again"):
        service.submitter.submit(OPERATOR, {"task": task})
    assert service.store.find_by_uuids([task["uuid"]]) == {}
    service.slurm.down = SlurmUnavailable("down")
    with pytest.raises(SlurmProxyError):
        service.submitter.submit(OPERATOR, {"task": task})


def test_a_retry_gets_the_first_answer_although_the_dependency_has_failed_since(service: Service) -> None:
    _, job_id = service.submit(uuid="a")
    task = task_after("afterok:a")
    first = body_of(service.submitter.submit(OPERATOR, {"task": task}, "k"))
    service.move(job_id, FAILED)
    assert body_of(service.submitter.submit(OPERATOR, {"task": task}, "k")) == first


def test_a_resubmitted_task_is_translated_again(service: Service) -> None:
    end(service, "a", DONE)
    again = end(service, "b", FAILED)
    task = task_after("afterany:b")
    service.submitter.submit(OPERATOR, {"task": task})
    call = ResubmissionCall({"task": {"slurm": {"dependency": "afterok:a,afterok:4711"}}})
    service.resubmission.resubmit_by_uuid(OPERATOR, task["uuid"], call)
    assert service.slurm.submitted[-1][0].slurm.dependency == "afterok:4711"
    assert again


def test_a_hundred_uuids_fit_into_a_dependency(service: Service) -> None:
    uuids = [service.submit()[0]["uuid"] for _ in range(100)]
    sent = translate(service, "afterok:" + ":".join(uuids))
    assert sent is not None
    assert sent.count("afterok:") == 100
