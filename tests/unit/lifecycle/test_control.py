"""Cancel, hold, release and requeue jobs."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    HeldByAdministrator,
    JobForgotten,
    NoJob,
    NoSuchTask,
    NotStarted,
    NotSupported,
    RequeueDisabled,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.lifecycle.control import TaskControl
from app.models.caller import OPERATOR
from app.models.job_action import Controlled, JobAction
from app.models.record import utc_now
from app.slurm.job_control import JobOutcome
from tests.support.fakes import FakeSlurm
from tests.support.lifecycle import Service, left_open

CANCEL, HOLD, RELEASE, REQUEUE = JobAction


def control(service: Service, action: JobAction, job_id: int) -> Controlled:
    """Do this with a job by its id."""
    use_case = TaskControl(service.store, service.client)
    return use_case.control_by_job_id(OPERATOR, action, str(job_id))


def answer(service: Service, action: JobAction, job_id: int) -> tuple[bool, JobState]:
    found = control(service, action, job_id)
    return found.changed, found.slurm_job_state


def refusal(
    service: Service, error: type[SlurmProxyError], action: JobAction, job_id: int, words: str
) -> None:
    with pytest.raises(error) as refused:
        control(service, action, job_id)
    assert str(refused.value) == words


def test_each_action_answers_the_state_afterwards_and_a_repeated_one_changes_nothing(
    service: Service,
) -> None:
    task, job_id = service.submit()
    slurm = service.slurm
    assert control(service, HOLD, job_id).model_dump() == {
        "uuid": task["uuid"],
        "slurm_job_id": job_id,
        "slurm_username": "alice",
        "slurm_job_state": JobState.PENDING,
        "changed": True,
    }
    assert slurm.jobs[job_id].reason == "JobHeldUser"
    assert answer(service, HOLD, job_id) == (False, JobState.PENDING)
    assert answer(service, RELEASE, job_id) == (True, JobState.PENDING)
    assert slurm.jobs[job_id].held_tasks == 0
    assert answer(service, RELEASE, job_id) == (False, JobState.PENDING)
    service.move(job_id, JobState.RUNNING)
    assert answer(service, RELEASE, job_id) == (False, JobState.RUNNING)
    assert answer(service, REQUEUE, job_id) == (True, JobState.PENDING)
    assert answer(service, REQUEUE, job_id) == (False, JobState.PENDING)
    assert slurm.jobs[job_id].restarts == 1
    assert answer(service, CANCEL, job_id) == (True, JobState.CANCELLED)
    assert answer(service, CANCEL, job_id) == (False, JobState.CANCELLED)
    service.refresh(utc_now())
    assert answer(service, CANCEL, job_id) == (False, JobState.CANCELLED)
    changes = [call for call in slurm.calls if call in ("cancel", "hold", "release", "requeue")]
    assert changes == ["hold", "release", "requeue", "cancel"]


def test_an_action_by_uuid_is_that_by_job_id(service: Service) -> None:
    task, job_id = service.submit()
    found = TaskControl(service.store, service.client).control_by_uuid(OPERATOR, HOLD, task["uuid"])
    assert (found.slurm_job_id, found.changed) == (job_id, True)
    assert answer(service, HOLD, job_id) == (False, JobState.PENDING)


def test_a_job_that_runs_is_not_held(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    words = f"slurm_job_id: job {job_id} has begun; only a job that waits can be held"
    refusal(service, AlreadyRunning, HOLD, job_id, words)
    assert "hold" not in service.slurm.calls


class StartsMeanwhile(FakeSlurm):
    """Starts a job at the moment in which it is held."""

    def hold(self, job_id: int, username: str) -> JobOutcome:
        self.put(job_id, JobState.RUNNING)
        return super().hold(job_id, username)


def test_a_job_that_starts_while_it_is_held_is_released_again(service: Service) -> None:
    service.slurm.__class__ = StartsMeanwhile
    _, job_id = service.submit()
    with pytest.raises(AlreadyRunning):
        control(service, HOLD, job_id)
    assert service.slurm.jobs[job_id].reason is None


class Ignores(FakeSlurm):
    """Accepts each action, and does nothing."""

    def hold(self, job_id: int, username: str) -> JobOutcome:
        return JobOutcome.UNREPORTED

    release = hold


def test_an_action_without_effect_is_no_success(service: Service) -> None:
    service.slurm.__class__ = Ignores
    _, job_id = service.submit()
    words = f"slurm_job_id: job {job_id} is not held; Slurm gave no reason"
    refusal(service, SlurmRefused, HOLD, job_id, words)
    service.slurm.put(job_id, held_tasks=1)
    words = f"slurm_job_id: job {job_id} is still held; Slurm gave no reason"
    refusal(service, SlurmRefused, RELEASE, job_id, words)


def test_the_waiting_tasks_of_an_array_are_held_while_others_run(service: Service) -> None:
    _, job_id = service.submit()
    tasks = {JobState.RUNNING: 2, JobState.PENDING: 3}
    service.move(job_id, JobState.RUNNING, array_job_id=job_id, array_tasks=tasks)
    assert answer(service, HOLD, job_id) == (True, JobState.RUNNING)
    assert service.slurm.jobs[job_id].held_tasks == 3
    assert answer(service, HOLD, job_id) == (False, JobState.RUNNING)
    service.slurm.put(job_id, JobState.RUNNING, held_tasks=1)
    assert answer(service, HOLD, job_id) == (True, JobState.RUNNING)
    assert answer(service, RELEASE, job_id) == (True, JobState.RUNNING)


def test_an_array_of_which_tasks_wait_after_a_requeue_is_not_requeued_again(service: Service) -> None:
    _, job_id = service.submit()
    tasks = {JobState.RUNNING: 2, JobState.PENDING: 3}
    service.move(job_id, JobState.RUNNING, array_job_id=job_id, array_tasks=tasks, requeued_tasks=3)
    assert answer(service, REQUEUE, job_id) == (False, JobState.RUNNING)


def test_a_job_that_an_administrator_holds_is_not_released(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.put(job_id, held_tasks=1, reason="JobHeldAdmin")
    words = f"slurm_job_id: job {job_id} is held by an administrator of the cluster; ask them to release it"
    refusal(service, HeldByAdministrator, RELEASE, job_id, words)


def test_a_job_that_has_ended_is_neither_held_nor_released_but_requeued(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.FAILED)
    words = f"slurm_job_id: job {job_id} has ended already; "
    refusal(service, AlreadyOver, HOLD, job_id, words + "there is nothing to hold")
    refusal(service, AlreadyOver, RELEASE, job_id, words + "to run the task again, resubmit it")
    assert answer(service, REQUEUE, job_id) == (True, JobState.PENDING)
    assert service.slurm.jobs[job_id].restarts == 1


def test_a_job_that_was_requeued_after_its_end_is_cancelled_before_the_poller_knows(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.COMPLETED)
    assert answer(service, REQUEUE, job_id) == (True, JobState.PENDING)
    assert answer(service, CANCEL, job_id) == (True, JobState.CANCELLED)


def test_a_job_that_waits_for_its_first_start_is_not_requeued(service: Service) -> None:
    _, job_id = service.submit()
    words = f"slurm_job_id: job {job_id} has not begun yet; there is nothing to requeue"
    refusal(service, NotStarted, REQUEUE, job_id, words)
    assert "requeue" not in service.slurm.calls


class EndsRequeue(FakeSlurm):
    """Reports a job that ends its processes before it waits again."""

    outcome = JobOutcome.PENDING

    def requeue(self, job_id: int, username: str) -> JobOutcome:
        return self.outcome


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_job_that_ends_its_processes_after_a_requeue_is_requeued_already(
    service: Service, restarts: int
) -> None:
    """The restart may be counted only when the processes have ended."""
    service.slurm.__class__ = EndsRequeue
    _, job_id = service.submit()
    service.move(job_id, JobState.COMPLETING, restarts=restarts)
    assert answer(service, REQUEUE, job_id) == (False, JobState.COMPLETING)


class ForbidsRequeue(EndsRequeue):
    outcome = JobOutcome.DISABLED


def test_a_job_that_may_not_be_requeued_is_to_be_resubmitted(service: Service) -> None:
    service.slurm.__class__ = ForbidsRequeue
    _, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    words = f"slurm_job_id: job {job_id} was submitted so that it cannot be requeued; resubmit the task"
    refusal(service, RequeueDisabled, REQUEUE, job_id, words)


@pytest.mark.parametrize("api", ["v0.0.38", "v0.0.42", "v0.0.44"])
def test_a_release_that_cannot_requeue_says_so(service: Service, api: str) -> None:
    service.slurm.api = api
    _, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    words = (
        "this cluster's release of Slurm does not offer to requeue a job; cancel the task, and resubmit it"
    )
    refusal(service, NotSupported, REQUEUE, job_id, words)
    assert service.slurm.jobs[job_id].job_state is JobState.RUNNING


@pytest.mark.parametrize(("api", "changed"), [("v0.0.38", False), ("v0.0.41", False), ("v0.0.42", True)])
def test_a_job_that_is_completing_counts_as_cancelled_only_if_slurm_reports_it(
    service: Service, api: str, changed: bool
) -> None:
    service.slurm.api = api
    _, job_id = service.submit()
    service.move(job_id, JobState.COMPLETING)
    assert control(service, CANCEL, job_id).changed is changed
    assert service.slurm.calls.count("cancel") == 1


@pytest.mark.parametrize("action", JobAction)
def test_a_job_that_slurm_has_forgotten_is_named_as_such(service: Service, action: JobAction) -> None:
    task, forgotten = service.submit()
    service.slurm.forget(forgotten, accounted=False)
    words = f"Slurm no longer knows job {forgotten}; to run the task again, resubmit it"
    refusal(service, JobForgotten, action, forgotten, f"slurm_job_id: {words}")
    service.slurm.put(forgotten)
    service.move(forgotten, JobState.UNKNOWN)
    refusal(service, JobForgotten, action, forgotten, f"slurm_job_id: {words}")
    with pytest.raises(JobForgotten, match=f"Slurm no longer knows the job of {task['uuid']}"):
        TaskControl(service.store, service.client).control_by_uuid(OPERATOR, action, task["uuid"])


@pytest.mark.parametrize("action", JobAction)
def test_a_job_with_the_same_id_that_is_another_is_never_changed(service: Service, action: JobAction) -> None:
    _, job_id = service.submit()
    service.slurm.put(job_id, JobState.PENDING, comment="slurm-proxy:another")
    with pytest.raises(JobForgotten):
        control(service, action, job_id)
    assert action not in service.slurm.calls


def test_an_end_that_only_slurmdbd_knows_is_an_end(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.put(job_id, JobState.COMPLETED)
    service.slurm.forget(job_id)
    assert answer(service, CANCEL, job_id) == (False, JobState.COMPLETED)
    with pytest.raises(JobForgotten):
        control(service, REQUEUE, job_id)


def test_an_ended_job_that_slurm_has_forgotten_is_answered_from_its_record(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.TIMEOUT)
    service.slurm.forget(job_id)
    assert answer(service, CANCEL, job_id) == (False, JobState.TIMEOUT)
    with pytest.raises(JobForgotten):
        control(service, REQUEUE, job_id)


def test_a_job_that_ended_long_ago_costs_slurm_nothing(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(utc_now() - timedelta(days=2))
    service.slurm.down = SlurmUnavailable("slurmctld does not answer")
    assert answer(service, CANCEL, job_id) == (False, JobState.COMPLETED)


def test_a_task_without_a_job_says_why(service: Service) -> None:
    unknown = left_open(service, exists=False)
    use_case = TaskControl(service.store, service.client)
    with pytest.raises(NoJob, match="not known yet; repeat the request in a minute"):
        use_case.control_by_uuid(OPERATOR, CANCEL, unknown["uuid"])
    record = service.record(unknown)
    service.store.fail_reservation(record, "Slurm refused the job", utc_now())
    with pytest.raises(NoJob, match="its submission failed; submit it again"):
        use_case.control_by_uuid(OPERATOR, CANCEL, unknown["uuid"])


@pytest.mark.parametrize("action", JobAction)
def test_an_unknown_task_is_not_found(service: Service, action: JobAction) -> None:
    refusal(service, NoSuchTask, action, 999, "slurm_job_id: no job 999 is monitored here")
    with pytest.raises(NoSuchTask, match="task_uuid: no task x is recorded here"):
        TaskControl(service.store, service.client).control_by_uuid(OPERATOR, action, "x")


class Changes(FakeSlurm):
    """Changes the job at the moment in which it is held or released."""

    change = JobOutcome.ENDED

    def hold(self, job_id: int, username: str) -> JobOutcome:
        return self.change

    release = hold


class Forgets(Changes):
    change = JobOutcome.UNKNOWN_JOB


@pytest.mark.parametrize(("slurm", "error"), [(Changes, AlreadyOver), (Forgets, JobForgotten)])
def test_a_job_that_ends_in_the_same_moment_is_neither_held_nor_released(
    service: Service, slurm: Callable[[], FakeSlurm], error: type[SlurmProxyError]
) -> None:
    service.slurm.__class__ = slurm  # type: ignore[assignment]
    _, job_id = service.submit()
    with pytest.raises(error):
        control(service, HOLD, job_id)
    service.slurm.put(job_id, held_tasks=1)
    with pytest.raises(error):
        control(service, RELEASE, job_id)
