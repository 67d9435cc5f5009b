"""Adopting the jobs of tasks that no record knows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import DuplicateUuid, IdempotencyKeyReused
from app.job_state import JobState
from app.lifecycle.adopt_jobs import Adoption, AdoptionOutcome, JobAdoption
from app.lifecycle.job_identity import make_tag
from app.models.audited_submission import AuditedSubmission
from app.models.caller import OPERATOR
from app.models.record import TaskRecord, utc_now
from tests.support.lifecycle import Service
from tests.support.tasks import make_email, make_task, new_uuid

AN_HOUR_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def adopt(service: Service, *audited: AuditedSubmission, dry_run: bool = False) -> list[Adoption]:
    adoption = JobAdoption(service.store, service.client, {"root", "slurm"})
    found = adoption.find_jobs(AN_HOUR_AGO, lambda *_: None)
    return list(adoption.adopt(found.jobs, audited, dry_run=dry_run))


def put(service: Service, job_id: int, uuid: str, state: JobState = JobState.RUNNING, **fields: Any) -> None:
    base = {"comment": make_tag(uuid), "submit_time": AN_HOUR_AGO, "name": "align", "partition": "debug"}
    service.slurm.put(job_id, state, **{**base, "working_directory": "/home/alice", **fields})


def record_of(service: Service, uuid: str) -> TaskRecord:
    return service.store.find_by_uuids([uuid])[uuid]


def test_a_job_without_a_record_gets_one_that_says_so(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid)
    (item,) = adopt(service)
    assert (item.outcome, item.state) == (AdoptionOutcome.ADOPTED, JobState.RUNNING)
    record = record_of(service, uuid)
    assert record.task == {
        "uuid": uuid,
        "username": "alice",
        "cwd": "/home/alice",
        "slurm": {"job_name": "align", "partition": "debug"},
        "adopted_from_slurm": True,
    }
    assert (record.slurm_username, record.slurm_job_id, record.created_at) == ("alice", 7, AN_HOUR_AGO)
    assert record.notifications == ()
    shown = service.lookup.find_by_uuid(OPERATOR, uuid)
    assert shown.monitor.warnings[0].startswith("adopted from Slurm after the record was lost")


def test_the_uuid_of_an_adopted_task_cannot_be_used_again(service: Service) -> None:
    task = make_task()
    put(service, 7, task["uuid"])
    adopt(service)
    for key, error in ((None, DuplicateUuid), ("a key", DuplicateUuid), (task["uuid"], IdempotencyKeyReused)):
        with pytest.raises(error):
            service.submitter.submit(OPERATOR, {"task": task}, key)
    assert service.slurm.submitted == []


def test_an_adopted_job_is_polled_and_its_end_is_recorded_without_a_message(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid)
    adopt(service)
    service.move(7, JobState.FAILED, exit_code=2)
    record = record_of(service, uuid)
    assert (record.slurm_job_state, record.notifications) == (JobState.FAILED, ())


def test_an_ended_job_is_recorded_with_its_end(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid, JobState.COMPLETED, exit_code=0)
    (item,) = adopt(service)
    assert item.state is JobState.COMPLETED
    record = record_of(service, uuid)
    assert (record.slurm_job_state, record.is_open, record.notifications) == (JobState.COMPLETED, False, ())


def test_adopting_again_changes_nothing(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid)
    adopt(service)
    before = record_of(service, uuid)
    assert [item.outcome for item in adopt(service)] == [AdoptionOutcome.KNOWN]
    assert record_of(service, uuid) == before


def test_a_dry_run_changes_nothing(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid)
    assert [item.outcome for item in adopt(service, dry_run=True)] == [AdoptionOutcome.ADOPTED]
    assert service.store.count_records() == 0


def test_the_record_of_a_job_that_is_known_stays_as_it_is(service: Service) -> None:
    submitted = service.submitter.submit(OPERATOR, {"task": make_task()})
    before = record_of(service, submitted.uuid)
    (item,) = adopt(service)
    assert (item.outcome, item.reason) == (AdoptionOutcome.KNOWN, "")
    assert record_of(service, submitted.uuid) == before


def reserve(service: Service, **fields: Any) -> TaskRecord:
    task = make_task(notification=make_email())
    now = utc_now()
    base = {"task": task, "slurm_username": "alice", "created_at": now, "updated_at": now}
    record = TaskRecord.model_validate({**base, **fields})
    service.store.add_record(record)
    return record


def test_a_reservation_gets_its_job_and_keeps_its_task(service: Service) -> None:
    record = reserve(service)
    put(service, 7, record.uuid)
    assert [item.outcome for item in adopt(service, dry_run=True)] == [AdoptionOutcome.SETTLED]
    assert record_of(service, record.uuid).is_reserved
    assert [item.outcome for item in adopt(service)] == [AdoptionOutcome.SETTLED]
    found = record_of(service, record.uuid)
    assert (found.slurm_job_id, found.task) == (7, record.task)


def test_a_submission_that_failed_before_the_backup_is_replaced(service: Service) -> None:
    record = reserve(service, submission_error="Slurm refused it")
    put(service, 7, record.uuid)
    assert [item.outcome for item in adopt(service)] == [AdoptionOutcome.ADOPTED]
    assert record_of(service, record.uuid).slurm_job_id == 7


def test_an_array_is_adopted_as_one_task(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid, array_job_id=7)
    put(service, 8, uuid, array_job_id=7)
    (item,) = adopt(service)
    assert (item.outcome, item.found.job_id) == (AdoptionOutcome.ADOPTED, 7)


# --- forged tags ----------------------------------------------------------------------------------


def test_a_forged_tag_takes_no_reservation_of_another_user(service: Service) -> None:
    record = reserve(service)
    put(service, 7, record.uuid, username="mallory")
    (item,) = adopt(service)
    assert (item.outcome, item.reason) == (AdoptionOutcome.IGNORED, "another user has reserved this uuid")
    assert record_of(service, record.uuid).is_reserved


def test_a_forged_tag_does_not_replace_the_failed_submission_of_another_user(service: Service) -> None:
    record = reserve(service, submission_error="Slurm refused it")
    put(service, 7, record.uuid, username="mallory")
    (item,) = adopt(service)
    assert (item.outcome, item.reason) == (AdoptionOutcome.IGNORED, "another user has used this uuid")
    assert record_of(service, record.uuid) == record


def test_the_audit_trail_replaces_the_failed_submission_of_another_user(service: Service) -> None:
    record = reserve(service, submission_error="Slurm refused it")
    put(service, 7, record.uuid, username="bob")
    line = AuditedSubmission(AN_HOUR_AGO, record.uuid, "bob", 7, "bob")
    assert [item.outcome for item in adopt(service, line)] == [AdoptionOutcome.ADOPTED]
    assert record_of(service, record.uuid).slurm_username == "bob"


def test_of_several_jobs_with_one_tag_the_first_counts(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid, username="mallory", submit_time=AN_HOUR_AGO + timedelta(seconds=1))
    put(service, 9, uuid)
    ignored, adopted = adopt(service)
    assert (ignored.outcome, ignored.found.username) == (AdoptionOutcome.IGNORED, "mallory")
    assert (adopted.outcome, adopted.found.username) == (AdoptionOutcome.ADOPTED, "alice")
    assert record_of(service, uuid).slurm_job_id == 9


def test_the_audit_trail_comes_before_every_tag(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid, username="mallory", submit_time=AN_HOUR_AGO - timedelta(minutes=1))
    put(service, 9, uuid)
    line = AuditedSubmission(AN_HOUR_AGO, uuid, "alice", 9, "key:pipeline:1", "the-first")
    assert [item.outcome for item in adopt(service, line)] == [
        AdoptionOutcome.IGNORED,
        AdoptionOutcome.ADOPTED,
    ]
    record = record_of(service, uuid)
    assert (record.slurm_username, record.slurm_job_id) == ("alice", 9)
    assert (record.caller, record.resubmitted_from) == ("key:pipeline:1", "the-first")


@pytest.mark.parametrize("username", ["root", "slurm", ""])
def test_no_job_of_a_refused_user_is_adopted(service: Service, username: str) -> None:
    put(service, 7, new_uuid(), username=username)
    (item,) = adopt(service)
    assert (item.outcome, item.reason) == (AdoptionOutcome.IGNORED, "no task runs as this user")
    assert service.store.count_records() == 0


@pytest.mark.parametrize("uuid", ["", "a/b", "ü", "x" * 129, "a\nb"])
def test_a_tag_that_is_no_uuid_is_passed_over(service: Service, uuid: str) -> None:
    put(service, 7, uuid)
    assert adopt(service) == []


# --- the audit trail alone ------------------------------------------------------------------------


def test_a_job_without_a_comment_is_adopted_by_the_audit_trail(service: Service) -> None:
    uuid = new_uuid()
    put(service, 7, uuid, JobState.COMPLETED)
    service.slurm.forget(7)
    assert adopt(service) == []
    line = AuditedSubmission(AN_HOUR_AGO, uuid, "alice", 7, "alice")
    (item,) = adopt(service, line)
    assert (item.outcome, item.state) == (AdoptionOutcome.ADOPTED, JobState.COMPLETED)


@pytest.mark.parametrize(
    "reused",
    [
        {},
        {"username": "bob", "comment": None},
        {"comment": make_tag("another")},
        {"comment": None, "submit_time": AN_HOUR_AGO + timedelta(minutes=30)},
    ],
)
def test_a_job_that_slurm_does_not_know_any_more_is_unknown(service: Service, reused: dict[str, Any]) -> None:
    uuid = new_uuid()
    if reused:
        put(service, 7, new_uuid(), **reused)
    line = AuditedSubmission(AN_HOUR_AGO, uuid, "alice", 7, "alice")
    item = adopt(service, line)[0]
    assert (item.outcome, item.state) == (AdoptionOutcome.ADOPTED, JobState.UNKNOWN)
    record = record_of(service, uuid)
    assert (record.slurm_job_id, record.job) == (7, None)
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": make_task(uuid=uuid)})
