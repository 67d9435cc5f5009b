"""Cancel jobs."""

import pytest

from app.errors import (
    AlreadyOver,
    NoSuchTask,
)
from app.job_state import JobState
from app.lifecycle.cancel import Cancellation
from app.models.caller import OPERATOR
from tests.support.fakes import FakeSlurm
from tests.support.lifecycle import Service


class TellsNothing(FakeSlurm):
    """As v0.0.40 and v0.0.41: what cannot be cancelled looks like a success."""

    def cancel(self, job_id: int, username: str) -> bool:
        super().cancel(job_id, username)
        return True


def test_a_job_that_has_ended_is_not_reported_as_cancelled(service: Service) -> None:
    service.slurm.__class__ = TellsNothing
    task, job_id = service.submit()
    service.slurm.put(job_id, JobState.COMPLETED)
    with pytest.raises(AlreadyOver, match="has ended already"):
        Cancellation(service.store, service.client).cancel_by_uuid(OPERATOR, task["uuid"])


def refusal_of_cancelling(service: Service, job_id: int) -> str:
    with pytest.raises((AlreadyOver, NoSuchTask)) as refused:
        Cancellation(service.store, service.client).cancel_by_job_id(OPERATOR, str(job_id))
    return str(refused.value)


def test_a_refusal_to_cancel_by_job_id_speaks_of_the_job(service: Service) -> None:
    _, job_id = service.submit()
    _, forgotten = service.submit()
    service.move(job_id, JobState.COMPLETED)
    assert refusal_of_cancelling(service, job_id) == f"slurm_job_id: job {job_id} has ended already"
    service.slurm.forget(forgotten, accounted=False)
    words = f"slurm_job_id: Slurm does not know job {forgotten} any more"
    assert refusal_of_cancelling(service, forgotten) == words
    assert refusal_of_cancelling(service, 999) == "slurm_job_id: no job 999 is monitored here"


def test_a_record_that_is_unknown_to_slurm_is_not_cancelled(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.UNKNOWN)
    words = f"slurm_job_id: Slurm does not know job {job_id} any more"
    assert refusal_of_cancelling(service, job_id) == words
    with pytest.raises(AlreadyOver, match=f"Slurm does not know the job of {task['uuid']} any more"):
        Cancellation(service.store, service.client).cancel_by_uuid(OPERATOR, task["uuid"])
