"""Reconcile reservations with the jobs that Slurm knows."""

import json
import sqlite3
from datetime import timedelta

import pytest

from app.errors import (
    DuplicateUuid,
    SlurmAmbiguous,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.models.caller import OPERATOR
from app.models.record import utc_now
from tests.support.lifecycle import LIFE, MINUTE, Service, left_open
from tests.support.tasks import make_email, make_task


def test_reconcile_adopts_what_a_crash_left_behind(service: Service) -> None:
    task = make_task()
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), True
    service.slurm.down = SlurmUnavailable("and slurmctld went away")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(SlurmUnavailable):
        service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(task).slurm_job_id is None, "nothing is settled while Slurm is down"
    service.slurm.down = None
    service.reconcile(utc_now() + 3 * MINUTE)
    (job_id,) = service.slurm.jobs
    assert service.record(task).slurm_job_id == job_id


def purge(service: Service) -> None:
    for job_id in list(service.slurm.jobs):
        service.slurm.forget(job_id)


def test_a_job_that_only_slurmdbd_knows_is_adopted_by_its_name(service: Service) -> None:
    task = left_open(service, exists=True)
    service.submit(slurm={"job_name": "another name"})
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    job_id = service.record(task).slurm_job_id
    assert job_id is not None
    assert service.slurm.ended[job_id].name == "slurm-proxy-test.generic"


def test_a_reservation_that_would_be_refused_today_keeps_no_other_open(service: Service) -> None:
    """Another version may have stricter rules."""
    strange, other = left_open(service, exists=False), left_open(service, exists=False)
    stored = json.dumps(strange | {"slurm": {"job_name": "a/b", "output": "%x"}, "notification": "x"})
    file = sqlite3.connect(service.store._path)
    with file:
        file.execute("UPDATE tasks SET task = ? WHERE uuid = ?", (stored, strange["uuid"]))
    file.close()
    service.slurm.put(999, username="alice", name="a/b", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert "may be used again" in str(service.record(other).submission_error)
    assert service.record(strange).slurm_job_id == 999


@pytest.mark.parametrize("has_accounting", [True, False])
@pytest.mark.parametrize("comment", ["set by the site", None])
def test_a_job_whose_comment_the_site_replaced_keeps_its_uuid(
    service: Service, has_accounting: bool, comment: str | None
) -> None:
    """A submit plugin may replace the comment, which is the only proof in slurmctld."""
    service.slurm.has_accounting = has_accounting
    task, other = left_open(service, exists=True), left_open(service, exists=False, cwd="/elsewhere")
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, comment=comment)
    service.reconcile(utc_now() + 3 * MINUTE)
    record = service.record(task)
    assert record.slurm_job_state is JobState.UNKNOWN
    assert "another comment" in str(record.submission_error)
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    assert "may be used again" in str(service.record(other).submission_error)


def test_of_two_similar_jobs_none_is_adopted(service: Service) -> None:
    task = left_open(service, exists=True, notification=make_email())
    service.slurm.put(999, username="alice", name="slurm-proxy-test.generic", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    record = service.record(task)
    assert (record.slurm_job_id, record.slurm_job_state) == (None, JobState.UNKNOWN)
    assert "2 jobs may be its job" in str(record.submission_error)
    assert [item.event for item in record.notifications] == ["end"]
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])
    service.deliver(utc_now() + 4 * MINUTE)
    assert service.email.messages[0].subject.startswith("[UNKNOWN]")


def test_a_job_that_fits_two_reservations_is_given_to_neither(service: Service) -> None:
    first, second = left_open(service, exists=True), left_open(service, exists=False)
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    for task in (first, second):
        assert service.record(task).slurm_job_state is JobState.UNKNOWN


def test_a_job_that_a_younger_reservation_may_have_made_is_not_given_away(service: Service) -> None:
    first, second = left_open(service, exists=True), left_open(service, exists=False)
    purge(service)
    with service.store.writing() as connection:
        connection.execute(
            "UPDATE tasks SET created_at = created_at + 30000 WHERE uuid = ?", (second["uuid"],)
        )
    service.reconcile(service.record(first).created_at + LIFE + MINUTE + timedelta(seconds=1))
    assert service.record(first).slurm_job_state is JobState.UNKNOWN
    assert service.record(second).is_reserved


def test_a_job_that_a_record_owns_is_not_given_away(service: Service) -> None:
    service.submit()
    lost = left_open(service, exists=False)
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(lost).slurm_job_id is None
    assert "may be used again" in str(service.record(lost).submission_error)


def test_without_slurmdbd_an_old_reservation_is_not_guessed(service: Service) -> None:
    service.slurm.has_accounting = False
    early, late = left_open(service, exists=False), left_open(service, exists=False)
    service.reconcile(utc_now() + 4 * MINUTE)
    assert service.record(early).submission_error == service.record(late).submission_error
    lost = left_open(service, exists=False)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(lost).slurm_job_state is JobState.UNKNOWN


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_freed_while_slurmdbd_is_away(service: Service, exists: bool) -> None:
    task = left_open(service, exists=exists)
    purge(service)
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    for minutes in (3, 60):
        service.reconcile(utc_now() + minutes * MINUTE)
        assert service.record(task).is_reserved
    service.slurm.accounting_down = None
    service.reconcile(utc_now() + 61 * MINUTE)
    assert (service.record(task).slurm_job_id is not None) is exists


@pytest.mark.parametrize("minutes", [3, 60])
def test_a_slurmdbd_that_lags_behind_proves_nothing(service: Service, minutes: int) -> None:
    """After an outage it answers at once, and learns only then what slurmctld has kept for it."""
    task = left_open(service, exists=True)
    purge(service)
    service.slurm.accounting_is_behind = True
    at = utc_now() + minutes * MINUTE + 2 * MINUTE
    service.reconcile(at)
    assert service.record(task).is_reserved
    service.slurm.accounting_is_behind = False
    service.reconcile(at + MINUTE)
    assert service.record(task).slurm_job_id in service.slurm.ended
    assert len(service.slurm.submitted) == 1


def test_nothing_is_freed_before_all_jobs_in_slurmctld_were_read(service: Service) -> None:
    task = left_open(service, exists=False)
    service.slurm.search_is_complete = False
    service.reconcile(utc_now() + 60 * MINUTE)
    assert service.record(task).is_reserved
    service.slurm.search_is_complete = True
    service.reconcile(utc_now() + 61 * MINUTE)
    assert service.record(task).is_freed


def test_search_before_a_submission_has_expired_proves_nothing(service: Service) -> None:
    left_open(service, exists=False)
    service.reconcile(utc_now() + timedelta(seconds=40))
    assert service.slurm.proven_until == [None]


def test_reservation_is_freed_once_all_jobs_up_to_its_expiry_were_read(service: Service) -> None:
    task = left_open(service, exists=False)
    expiry = service.record(task).created_at + LIFE + MINUTE
    service.slurm.search_is_complete = False
    for until, is_freed in ((expiry - timedelta(seconds=1), False), (expiry, True)):
        service.slurm.search_complete_until = until
        service.reconcile(utc_now() + 60 * MINUTE)
        assert service.record(task).is_freed is is_freed
    assert service.slurm.proven_until == [expiry, expiry]


def test_proof_for_one_reservation_settles_no_later_one(service: Service) -> None:
    first = left_open(service, exists=False)
    second = left_open(service, exists=False)
    service.slurm.search_is_complete = False
    service.slurm.search_complete_until = service.record(first).created_at + LIFE + MINUTE
    service.reconcile(utc_now() + 60 * MINUTE)
    assert service.record(first).is_freed
    assert service.record(second).is_reserved


def test_a_job_in_slurmctld_is_adopted_while_slurmdbd_is_away(service: Service) -> None:
    task = left_open(service, exists=True)
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).slurm_job_id in service.slurm.jobs
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), True
    assert service.submit()[1] in service.slurm.jobs, "the submission itself finds it, too"


@pytest.mark.parametrize(
    ("name", "kept"), [('say "hi"', "say `hi`"), ("it's", "its"), ("n" * 1000, "n" * 255), ("\\x", "x")]
)
def test_a_name_that_slurmdbd_has_altered_is_still_that_of_the_job(
    service: Service, name: str, kept: str
) -> None:
    task = left_open(service, exists=True, slurm={"job_name": name})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name=kept)
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_id == job_id


def test_a_job_whose_name_is_another_than_a_plain_one_is_another_job(service: Service) -> None:
    task = left_open(service, exists=False)
    service.slurm.put(999, username="alice", name="by hand", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).submission_error is not None
    assert service.record(task).slurm_job_state is None


def test_a_nameless_job_of_an_earlier_version_is_still_found_by_the_name_that_slurmdbd_gives_it(
    service: Service,
) -> None:
    task = left_open(service, exists=True, slurm={"output": "o"})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name="allocation")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_id == job_id


def test_a_name_that_slurmdbd_may_have_altered_beyond_recognition_is_no_reason_to_guess(
    service: Service,
) -> None:
    task = left_open(service, exists=True, slurm={"job_name": "größer?"})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name="gr??er?")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])


def test_a_job_of_another_task_is_not_followed_however_often_it_was_requeued(service: Service) -> None:
    """Its id was used again; a requeued job may have any submit time, but it keeps its tag."""
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.RUNNING)
    submitted = service.slurm.jobs[job_id].submit_time
    assert submitted is not None
    others = {"submit_time": submitted + MINUTE, "restarts": 1, "comment": "slurm-proxy:another"}
    service.slurm.accounts_at_once = False
    service.move(job_id, JobState.COMPLETED, **others)
    assert service.record(task).slurm_job_state is JobState.RUNNING
    service.refresh(utc_now() + 11 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN


def test_many_reservations_cost_one_search(service: Service) -> None:
    for exists in (True, False, True):
        left_open(service, exists=exists)
    service.slurm.calls.clear()
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.slurm.calls == ["search"]


def test_a_leader_that_was_paused_writes_nothing(service: Service) -> None:
    task, job_id = service.submit()
    fence = service.fence()
    service.slurm.put(job_id, JobState.COMPLETED)
    assert service.store.acquire_lease("another", utc_now(), utc_now() + MINUTE) == fence + 1
    assert service.poller.poll_once(utc_now(), fence) == 0
    assert service.record(task).slurm_job_state is JobState.PENDING
