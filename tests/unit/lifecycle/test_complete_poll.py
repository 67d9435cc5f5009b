"""Name the jobs whose records may be behind after a poll."""

from datetime import timedelta

import pytest

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.models.record import utc_now
from tests.support.lifecycle import MINUTE, Service


def uncovered(service: Service) -> frozenset[int]:
    assert service.poller.last_complete is not None
    return service.poller.last_complete.uncovered


def test_a_poll_that_records_its_changes_covers_every_job(service: Service) -> None:
    _, changed = service.submit()
    service.submit()
    service.slurm.put(changed, JobState.RUNNING)
    began = utc_now()
    service.refresh(began)
    assert service.poller.last_complete is not None
    assert service.poller.last_complete.began == began
    assert uncovered(service) == set()


def test_a_job_whose_state_was_not_found_out_is_not_covered(service: Service) -> None:
    _, unread = service.submit()
    service.submit()
    service.slurm.unread_jobs = frozenset({unread, 999_999})
    service.refresh(utc_now())
    assert uncovered(service) == {unread}


def test_an_end_is_covered_once_it_is_recorded(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.accounts_at_once = False
    now = utc_now()
    service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(now)
    assert uncovered(service) == {job_id}, "it waits for its accounting"
    service.refresh(now + timedelta(seconds=30))
    assert uncovered(service) == set()


def test_a_job_that_slurmctld_forgot_is_not_covered_until_its_record_ends(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.forget(job_id, accounted=False)
    now = utc_now()
    service.refresh(now)
    assert uncovered(service) == {job_id}
    service.refresh(now + 11 * MINUTE)
    assert uncovered(service) == set()


def test_a_poll_that_fails_is_not_complete(service: Service) -> None:
    service.submit()
    began = utc_now()
    service.refresh(began)
    service.slurm.down = SlurmUnavailable("no answer")
    with pytest.raises(SlurmUnavailable):
        service.refresh(began + MINUTE)
    assert service.poller.last_complete is not None
    assert service.poller.last_complete.began == began


def test_a_poll_that_leaves_many_jobs_unread_is_not_complete(service: Service) -> None:
    job_ids = [service.submit()[1] for _ in range(101)]
    service.slurm.unread_jobs = frozenset(job_ids)
    service.refresh(utc_now())
    assert service.poller.last_complete is None


def test_a_poll_whose_changes_a_newer_leader_prevents_is_not_complete(service: Service) -> None:
    _, job_id = service.submit()
    service.slurm.put(job_id, JobState.RUNNING)
    old = service.fence()
    service.store.acquire_lease("elsewhere", utc_now() + 2 * MINUTE, utc_now() + 3 * MINUTE)
    service.poller.poll_once(utc_now(), old)
    assert service.poller.last_complete is None
