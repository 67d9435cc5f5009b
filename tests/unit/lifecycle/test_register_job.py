"""Register jobs that were submitted elsewhere."""

from typing import Any

import pytest

from app.errors import (
    InvalidRequest,
    NotTheOwner,
    UnknownJob,
)
from app.job_state import JobState
from app.models.record import utc_now
from tests.support.lifecycle import Service, watch
from tests.support.tasks import make_email


def test_a_job_from_elsewhere_is_taken_over(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING)
    answer = watch(service, 5, slurm_job_state="PENDING", task={"notification": make_email()})
    assert answer["slurm_job_state"] == "RUNNING", "Slurm's word counts"
    assert {"slurm_username", "slurm_job_id", "task", "created_at", "updated_at"} <= answer.keys()
    service.move(5, JobState.FAILED, exit_code=2)
    service.deliver()
    assert service.email.messages[0].subject == "[FAILED] the test job has ended"


def test_a_job_that_has_ended_already_is_announced_at_once(service: Service) -> None:
    service.slurm.put(5, JobState.TIMEOUT)
    watch(service, 5, task={"notification": make_email()})
    service.refresh(utc_now())
    service.deliver()
    assert len(service.email.messages) == 1


def test_a_foreign_or_unknown_job_is_not_taken_over(service: Service) -> None:
    service.slurm.put(5, username="bob")
    with pytest.raises(NotTheOwner, match=r"^monitor\.task\.username"):
        watch(service, 5)
    with pytest.raises(UnknownJob, match=r"^monitor\.slurm_job_id"):
        watch(service, 6)


def test_a_stated_state_must_be_one_of_slurms(service: Service) -> None:
    service.slurm.put(5)
    with pytest.raises(InvalidRequest, match=r"monitor\.slurm_job_state"):
        watch(service, 5, slurm_job_state="DONE")


@pytest.mark.parametrize("options", [True, "x", ["array"], {"array": {}}, {"array": 5}])
def test_slurm_options_of_a_registered_task_do_not_stop_its_monitoring(
    service: Service, options: Any
) -> None:
    other, job_id = service.submit()
    service.slurm.put(5, JobState.RUNNING)
    watch(service, 5, task={"slurm": options})
    service.slurm.put(5, JobState.COMPLETED)
    service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(utc_now())
    assert service.record(other).slurm_job_state is JobState.COMPLETED
    assert service.store.list_open_jobs() == []
