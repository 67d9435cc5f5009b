"""Ends for which the poller waits for the accounting of slurmdbd."""

from datetime import timedelta
from typing import Any

import pytest

from app.errors import (
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.models.record import utc_now
from tests.support.lifecycle import MINUTE, Service
from tests.support.tasks import make_email


def test_an_end_waits_a_little_for_the_figures_of_slurmdbd(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED, exit_code=0, memory_mb=4096)
    now = utc_now()
    assert service.refresh(now) == 0
    assert service.record(task).slurm_job_state is JobState.PENDING
    measured = service.slurm.jobs[job_id].model_copy(
        update={"max_memory_bytes": 2**30, "cpu_seconds": 5.0, "exit_code": None, "comment": None}
    )
    service.slurm.ended[job_id] = measured
    assert service.refresh(now + timedelta(seconds=5)) == 1
    job = service.record(task).job
    assert job is not None
    assert (job.exit_code, job.max_memory_bytes, job.cpu_seconds) == (0, 2**30, 5.0)
    service.deliver(now + timedelta(seconds=6))
    assert "Memory     1.0 GB of 4.0 GB" in service.email.messages[0].text


def test_an_end_does_not_wait_for_long(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED)
    now = utc_now()
    service.refresh(now)
    service.refresh(now + timedelta(seconds=10))
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def array_of(service: Service, spec: str) -> tuple[dict[str, Any], int]:
    options = {"mem": 10, "time": 1, "array": spec}
    return service.submit(slurm=options, notification=make_email(subject="array"))


def test_an_array_whose_failed_tasks_slurmctld_has_forgotten_did_not_succeed(service: Service) -> None:
    task, job_id = array_of(service, "0-3")
    service.slurm.accounts_at_once = False
    job = service.slurm.put(
        job_id, JobState.COMPLETED, exit_code=0, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id
    )
    now = utc_now()
    whole = {JobState.COMPLETED: 1, JobState.FAILED: 3}
    update = {"job_state": JobState.FAILED, "exit_code": 1, "array_tasks": whole, "comment": None}
    assert service.refresh(now) == 0
    service.slurm.ended[job_id] = job.model_copy(update=update)
    assert service.refresh(now + timedelta(seconds=5)) == 1
    record = service.record(task)
    assert record.slurm_job_state is JobState.FAILED
    assert record.job is not None
    assert record.job.array_tasks == whole
    service.deliver(now + timedelta(seconds=6))
    assert service.email.messages[0].subject == "[FAILED] array"


def test_an_array_waits_for_a_slurmdbd_that_is_away(service: Service) -> None:
    task, job_id = array_of(service, "0-3")
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    service.slurm.put(job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id)
    for minutes in range(30):
        service.refresh(utc_now() + minutes * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.slurm.accounting_down = None
    whole = service.slurm.jobs[job_id].model_copy(update={"array_tasks": {JobState.COMPLETED: 4}})
    service.slurm.ended[job_id] = whole
    service.refresh(utc_now() + 31 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_an_array_waits_for_a_slurmdbd_that_is_back_and_has_yet_to_learn_all(service: Service) -> None:
    task, job_id = array_of(service, "0-2")
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    job = service.slurm.put(
        job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id
    )
    began = utc_now()
    for minutes in range(30):
        service.refresh(began + minutes * MINUTE)
    service.slurm.accounting_down = None
    so_far = {JobState.COMPLETED: 2, JobState.RUNNING: 1}
    service.slurm.ended[job_id] = job.model_copy(
        update={"job_state": JobState.RUNNING, "array_tasks": so_far, "comment": None}
    )
    service.refresh(began + 30 * MINUTE)
    service.refresh(began + 31 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    whole = {"array_tasks": {JobState.COMPLETED: 3}, "comment": None}
    service.slurm.ended[job_id] = job.model_copy(update=whole)
    service.refresh(began + 32 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_an_array_that_slurmdbd_never_knows_whole_is_announced_in_the_end(service: Service) -> None:
    task, job_id = array_of(service, "0-2")
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id)
    began = utc_now()
    service.refresh(began)
    service.refresh(began + 10 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN


@pytest.mark.parametrize("error", [SlurmUnavailable("away"), SlurmMisbehaved("the token")])
def test_a_slurmdbd_that_answers_nothing_hides_no_end(service: Service, error: SlurmProxyError) -> None:
    lost, lost_id = service.submit()
    task, job_id = service.submit()
    service.slurm.forget(lost_id)
    service.slurm.put(job_id, JobState.COMPLETED)
    service.slurm.accounting_down = error
    service.refresh(utc_now())
    assert service.record(task).slurm_job_state is JobState.COMPLETED
    assert service.record(lost).slurm_job_state is JobState.PENDING


@pytest.mark.parametrize(
    ("state", "told"), [(JobState.COMPLETED, JobState.UNKNOWN), (JobState.FAILED, JobState.FAILED)]
)
def test_without_slurmdbd_an_array_that_is_not_known_whole_is_never_a_success(
    service: Service, state: JobState, told: JobState
) -> None:
    task, job_id = array_of(service, "0-3%2")
    service.slurm.has_accounting = False
    service.move(job_id, state, array_tasks={state: 3}, array_job_id=job_id)
    assert service.record(task).slurm_job_state is told


@pytest.mark.parametrize("failure", ["no slurmdbd", "down", "odd"])
def test_without_accounting_an_end_is_announced_at_once(service: Service, failure: str) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.has_accounting = failure != "no slurmdbd"
    service.slurm.accounting_down = {
        "no slurmdbd": None,
        "down": SlurmUnavailable("slurmdbd is down"),
        "odd": SlurmMisbehaved("what?"),
    }[failure]
    service.move(job_id, JobState.COMPLETED)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_the_figures_of_many_ends_cost_one_request(service: Service) -> None:
    ids = [service.submit()[1] for _ in range(50)]
    for job_id in ids:
        service.slurm.put(job_id, JobState.COMPLETED)
    service.slurm.calls.clear()
    assert service.refresh(utc_now()) == 50
    assert service.slurm.calls == ["poll", "read_accounting"]
