"""Cancel the tasks that a filter describes."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from app.errors import CancellationBusy, Forbidden, InvalidRequest, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.cancel_many import BulkCancellation
from app.models.bulk_cancellation import CancelledTasks, CancelOutcome
from app.models.caller import OPERATOR, Caller, Grant, Scope
from app.models.job import SlurmJob
from app.slurm.job_control import JobOutcome
from tests.support.fakes import FakeSlurm
from tests.support.lifecycle import Service, left_open

CANCELLED, WOULD_BE, OVER, FAILED, NOT_TRIED = CancelOutcome
ALL = {"filter": {"state": "open"}}


def use_case(service: Service, refused_users: Collection[str] = (), **options: Any) -> BulkCancellation:
    """Return the use case, which waits for nothing."""
    return BulkCancellation(
        service.store, service.client, refused_users, **{"sleep": lambda _: None, **options}
    )


def cancel(service: Service, body: dict[str, Any], caller: Caller = OPERATOR) -> CancelledTasks:
    return use_case(service).cancel_many(caller, body)


def outcomes(answer: CancelledTasks) -> dict[str, CancelOutcome]:
    return {task.uuid: task.outcome for task in answer.tasks}


def submit_many(service: Service, count: int, **fields: Any) -> list[int]:
    return [service.submit(**fields)[1] for _ in range(count)]


def test_the_open_tasks_that_meet_the_filter_are_cancelled(service: Service) -> None:
    waits, _ = service.submit(slurm={"job_name": "train-1"})
    runs, running = service.submit(slurm={"job_name": "train-2"})
    ended, done = service.submit(slurm={"job_name": "train-3"})
    other, kept = service.submit(slurm={"job_name": "other"})
    service.move(running, JobState.RUNNING)
    service.move(done, JobState.COMPLETED)
    answer = cancel(service, {"filter": {"job_name": "train-*"}})
    assert outcomes(answer) == {waits["uuid"]: CANCELLED, runs["uuid"]: CANCELLED}
    assert (answer.next, answer.dry_run) == (None, False)
    assert service.slurm.jobs[done].job_state is JobState.COMPLETED
    assert service.slurm.jobs[kept].job_state is JobState.PENDING
    assert ended["uuid"] not in outcomes(answer)
    assert other["uuid"] not in outcomes(answer)


def test_a_repeated_request_cancels_nothing_again(service: Service) -> None:
    task, job_id = service.submit()
    assert outcomes(cancel(service, ALL)) == {task["uuid"]: CANCELLED}
    (again,) = cancel(service, ALL).tasks
    assert again.model_dump(mode="json") == {
        "uuid": task["uuid"],
        "slurm_job_id": job_id,
        "slurm_username": "alice",
        "outcome": "already_over",
    }
    service.refresh(service.store.now())
    assert cancel(service, ALL).tasks == []


def test_a_filter_with_a_state_spares_tasks_in_other_states(service: Service) -> None:
    waits, _ = service.submit()
    _, running = service.submit()
    service.move(running, JobState.RUNNING)
    assert outcomes(cancel(service, {"filter": {"state": ["PENDING", "FAILED"]}})) == {
        waits["uuid"]: CANCELLED
    }


def test_a_dry_run_lists_the_tasks_and_asks_slurm_nothing(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.calls.clear()
    for body, flag in (({**ALL, "dry_run": True}, False), (ALL, True)):
        answer = use_case(service).cancel_many(OPERATOR, body, is_dry_run=flag)
        assert outcomes(answer) == {task["uuid"]: WOULD_BE}
        assert answer.dry_run
    assert service.slurm.calls == []
    assert service.slurm.jobs[job_id].job_state is JobState.PENDING


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "filter: is required"),
        ({"filter": {}}, "filter: must have at least one condition, such as state, name or since"),
        ({"filter": {"stat": "open"}}, "filter.stat: is not known; did you mean state?"),
        (
            {"filter": {"state": "RUNING"}},
            "filter.state[0]: RUNING is not a job state; did you mean RUNNING?",
        ),
        (
            {"filter": {"state": ["COMPLETED"]}},
            "filter.state: must include a state of tasks that have not ended, such as open",
        ),
        ({"filter": {"since": "yesterday"}}, "filter.since: must be a time in ISO 8601 such as"),
        ({**ALL, "dryrun": True}, "dryrun: is not known; did you mean dry_run?"),
        ({**ALL, "dry_run": "yes"}, "dry_run: must be true or false"),
        ({"filter": [1]}, "filter: "),
        ({**ALL, "after": 5}, "after: must be one line of text"),
        ({**ALL, "after": "nonsense"}, "after: "),
    ],
)
def test_a_body_with_a_fault_cancels_nothing(service: Service, body: dict[str, Any], fault: str) -> None:
    _, job_id = service.submit()
    with pytest.raises(InvalidRequest) as refused:
        cancel(service, body)
    assert str(refused.value).startswith(fault)
    assert service.slurm.jobs[job_id].job_state is JobState.PENDING


def test_only_tasks_of_the_callers_users_are_cancelled(service: Service) -> None:
    mine, _ = service.submit(username="alice")
    _, of_bob = service.submit(username="bob")
    grants = (
        Grant(scopes=frozenset({Scope.CANCEL}), users=("alice",)),
        Grant(scopes=frozenset({Scope.READ}), users=("bob",)),
    )
    caller = Caller("pipeline", grants)
    assert outcomes(cancel(service, ALL, caller)) == {mine["uuid"]: CANCELLED}
    assert cancel(service, {"filter": {"username": "bob"}}, caller).tasks == []
    assert service.slurm.jobs[of_bob].job_state is JobState.PENDING
    reader = Caller("reader", (Grant(scopes=frozenset({Scope.READ}), users="any"),))
    with pytest.raises(Forbidden):
        cancel(service, ALL, reader)


def test_a_bulk_cancellation_names_tasks_of_users_whose_jobs_are_never_changed(service: Service) -> None:
    service.submit(username="bob")
    (task,) = use_case(service, {"bob"}).cancel_many(OPERATOR, ALL).tasks
    assert (task.outcome, task.error) == (FAILED, "this server does not act as bob")


@pytest.mark.parametrize("api", ["v0.0.38", "v0.0.45"])
def test_one_failed_cancellation_does_not_stop_the_others(service: Service, api: str) -> None:
    service.slurm.api = api
    job_ids = submit_many(service, 5)
    refused, forgotten, another, over, fine = job_ids
    service.slurm.uncancellable.add(refused)
    service.slurm.forget(forgotten)
    service.slurm.put(another, comment="slurm-proxy:another")
    service.slurm.put(over, JobState.COMPLETED)
    by_id = {task.slurm_job_id: (task.outcome, task.error) for task in cancel(service, ALL).tasks}
    assert by_id == {
        refused: (FAILED, f"Slurm does not cancel job {refused}: Access/permission denied"),
        forgotten: (OVER, f"Slurm no longer knows job {forgotten}"),
        another: (OVER, f"Slurm no longer knows job {another}"),
        over: (OVER, None),
        fine: (CANCELLED, None),
    }
    assert service.slurm.jobs[another].job_state is JobState.PENDING


def test_a_reservation_in_a_bulk_cancellation_fails_and_is_named(service: Service) -> None:
    task = left_open(service, exists=False)
    (found,) = cancel(service, ALL).tasks
    assert (found.uuid, found.slurm_job_id, found.outcome) == (task["uuid"], None, FAILED)
    assert found.error == "the job of the task is not known yet; repeat the request in a minute"


def test_a_job_that_cannot_be_read_is_not_tried(service: Service) -> None:
    class Unreadable(FakeSlurm):
        def read_jobs(self, job_ids: Collection[int]) -> dict[int, SlurmJob | None]:
            return {}

    _, job_id = service.submit()
    service.slurm.__class__ = Unreadable
    (task,) = cancel(service, ALL).tasks
    assert task.outcome is NOT_TRIED
    assert task.error == f"slurmctld's answer about job {job_id} is missing or cannot be read"


def test_jobs_are_cancelled_in_chunks_of_one_user(service: Service) -> None:
    submit_many(service, 60)
    submit_many(service, 3, username="bob")
    service.slurm.calls.clear()
    answer = cancel(service, ALL)
    assert Counter(task.outcome for task in answer.tasks) == {CANCELLED: 63}
    assert [task.slurm_username for task in answer.tasks[:3]] == ["bob"] * 3  # the newest first
    assert Counter(service.slurm.calls) == {"read_jobs": 3, "cancel_many": 3}


def test_at_most_200_tasks_are_tried_a_second(service: Service) -> None:
    submit_many(service, 120)
    slept: list[float] = []
    use_case(service, clock=lambda: 0.0, sleep=slept.append).cancel_many(OPERATOR, ALL)
    assert slept == [0.25] * 3


def test_a_bulk_cancellation_ends_in_time_and_names_the_tasks_that_were_not_tried(service: Service) -> None:
    submit_many(service, 120)
    now = [0.0]

    def tick() -> float:
        now[0] += 8.0
        return now[0]

    answer = use_case(service, clock=tick).cancel_many(OPERATOR, ALL)
    counts = Counter(task.outcome for task in answer.tasks)
    assert counts.keys() == {CANCELLED, NOT_TRIED}
    assert counts[NOT_TRIED] == 70
    rest = cancel(service, ALL)
    assert Counter(task.outcome for task in rest.tasks)[CANCELLED] == counts[NOT_TRIED]


def test_an_older_release_is_asked_for_one_job_after_the_other_until_the_time_is_over(
    service: Service,
) -> None:
    service.slurm.api = "v0.0.38"
    submit_many(service, 30)
    now = [0.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    answer = use_case(service, clock=tick).cancel_many(OPERATOR, ALL)
    counts = Counter(task.outcome for task in answer.tasks)
    assert counts[NOT_TRIED] + counts[CANCELLED] == 30
    assert 10 < counts[CANCELLED] < 20
    assert service.slurm.calls.count("cancel") == counts[CANCELLED]


def test_a_bulk_cancellation_tries_no_task_while_slurm_is_down(service: Service) -> None:
    submit_many(service, 60)
    service.slurm.down = SlurmUnavailable("slurmctld does not answer")
    service.slurm.calls.clear()
    answer = cancel(service, ALL)
    assert {task.outcome for task in answer.tasks} == {NOT_TRIED}
    assert answer.tasks[0].error == "slurmctld does not answer"
    assert service.slurm.calls == ["read_jobs"]


class LosesAnswers(FakeSlurm):
    """Cancels, but its answers are lost."""

    def cancel(self, job_id: int, username: str) -> JobOutcome:
        super().cancel(job_id, username)
        raise SlurmUnavailable("it is unknown whether the job is cancelled")

    def cancel_many(self, *arguments: Any) -> Any:
        super().cancel_many(*arguments)
        raise SlurmUnavailable("it is unknown whether the jobs are cancelled")


@pytest.mark.parametrize(("api", "expected"), [("v0.0.45", 3), ("v0.0.38", 1)])
def test_a_bulk_cancellation_whose_answer_is_lost_can_be_repeated(
    service: Service, api: str, expected: int
) -> None:
    service.slurm.api = api
    submit_many(service, 3)
    service.slurm.__class__ = LosesAnswers
    counts = Counter(task.outcome for task in cancel(service, ALL).tasks)
    assert counts[FAILED] == expected
    assert counts[NOT_TRIED] == 3 - expected
    service.slurm.__class__ = FakeSlurm
    assert {task.outcome for task in cancel(service, ALL).tasks} <= {CANCELLED, OVER}
    assert all(job.job_state is JobState.CANCELLED for job in service.slurm.jobs.values())


def test_tasks_beyond_the_limit_of_a_bulk_cancellation_are_left_to_the_next_request(service: Service) -> None:
    job_ids = submit_many(service, 5)
    few = use_case(service, max_tasks=3)
    first = few.cancel_many(OPERATOR, ALL)
    assert [task.slurm_job_id for task in first.tasks] == job_ids[:1:-1]
    assert first.next is not None
    second = few.cancel_many(OPERATOR, {**ALL, "after": first.next})
    assert [task.slurm_job_id for task in second.tasks] == job_ids[1::-1]
    assert second.next is None


def test_a_process_cancels_for_one_request_at_a_time(service: Service) -> None:
    service.submit()
    busy: list[type[Exception]] = []

    def try_again(_: float) -> None:
        cancelling.cancel_many(OPERATOR, {**ALL, "dry_run": True})
        try:
            cancelling.cancel_many(OPERATOR, ALL)
        except CancellationBusy as error:
            busy.append(type(error))

    cancelling = use_case(service, sleep=try_again)
    cancelling.cancel_many(OPERATOR, ALL)
    assert busy == [CancellationBusy]
    cancelling.cancel_many(OPERATOR, ALL)
