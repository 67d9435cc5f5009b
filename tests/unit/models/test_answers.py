"""The answers leave out empty fields, and keep the order of their keys."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from app.job_state import JobState
from app.lifecycle.responses import describe_record
from app.models import answers
from app.models.answers import KeptNotification, Record, SlurmFacts, Submitted
from app.models.job import SlurmJob
from app.models.job_facts import JobFacts
from app.models.record import NotificationStatus, TaskRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_submitted_without_warnings_has_no_such_key() -> None:
    body = Submitted(uuid="u", slurm_job_id=7, slurm_job_state=JobState.PENDING).model_dump(mode="json")
    assert body == {"uuid": "u", "slurm_job_id": 7, "slurm_job_state": "PENDING"}


@pytest.mark.parametrize("name", ["warnings", "submission_error", "resubmitted_from"])
def test_record_without_a_problem_has_no_such_key(name: str) -> None:
    record = TaskRecord(task={"uuid": "u"}, slurm_username="alice", created_at=NOW, updated_at=NOW)
    body = describe_record(record).model_dump(mode="json")
    assert name not in body
    assert list(body) == [field for field in Record.model_fields if field in body]


def test_record_takes_every_other_field_from_the_stored_record() -> None:
    computed = {"ended", "succeeded", "resubmitted_as"}
    assert set(Record.model_fields) - computed <= set(TaskRecord.model_fields)


@pytest.mark.parametrize(
    ("fields", "ended", "succeeded"),
    [
        ({}, False, None),  # a reservation
        ({"submission_error": "refused"}, True, False),
        ({"slurm_job_id": 1, "slurm_job_state": "PENDING"}, False, None),
        ({"slurm_job_id": 1, "slurm_job_state": "COMPLETING"}, False, None),
        ({"slurm_job_id": 1, "slurm_job_state": "SPECIAL_EXIT"}, False, None),
        ({"slurm_job_id": 1, "slurm_job_state": "COMPLETED"}, True, True),
        ({"slurm_job_id": 1, "slurm_job_state": "CANCELLED"}, True, False),
        ({"slurm_job_id": 1, "slurm_job_state": "UNKNOWN"}, True, None),
        ({"slurm_job_state": "UNKNOWN", "submission_error": "lost"}, True, None),
    ],
)
def test_record_says_whether_the_task_has_ended_and_succeeded(
    fields: dict[str, Any], ended: bool, succeeded: bool | None
) -> None:
    given = {"task": {"uuid": "u"}, "slurm_username": "alice", "created_at": NOW, "updated_at": NOW}
    body = describe_record(TaskRecord.model_validate({**given, **fields}))
    assert (body.ended, body.succeeded) == (ended, succeeded)


def test_module_of_the_answers_names_every_fact_of_a_job() -> None:
    facts = {name for name, field in SlurmJob.model_fields.items() if not field.exclude}
    assert facts <= set(re.findall(r"\w+", answers.__doc__ or ""))


def test_facts_without_a_job_are_user_id_and_state() -> None:
    known = {"username": "alice", "job_id": 7, "job_state": JobState.UNKNOWN, "as_of": NOW}
    facts = SlurmFacts.model_validate(known)
    assert list(facts.model_dump(mode="json").items()) == [
        ("username", "alice"),
        ("job_id", 7),
        ("job_state", "UNKNOWN"),
        ("as_of", "2026-01-02T03:04:05+00:00"),
    ]


def test_facts_of_a_job_are_null_where_slurm_reports_nothing_and_come_before_their_time() -> None:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.FAILED)
    facts = SlurmFacts.model_validate({**job.model_dump(), "hint": "h", "as_of": NOW})
    body = facts.model_copy(update={"stale": True, "error": "e"}).model_dump(mode="json")
    assert body["exit_code"] is None
    assert list(body)[:3] == ["job_id", "username", "job_state"]
    assert list(body)[-4:] == ["hint", "as_of", "stale", "error"]
    assert "task_mask" not in body


def test_stored_notification_names_its_task_first() -> None:
    texts = dict.fromkeys(("task_uuid", "id", "event", "method", "to", "subject", "text"), "text")
    nothing = dict.fromkeys(("attempt_after", "last_error", "sent_at"))
    fields = {"status": NotificationStatus.DEAD, "created_at": NOW, "attempts": 1, **nothing, **texts}
    notification = KeptNotification.model_validate(fields)
    body = notification.model_dump(mode="json")
    assert next(iter(body)) == "task_uuid"
    assert {"digest", "revived_at"}.isdisjoint(body)


def test_job_facts_leave_out_what_is_not_known_and_keep_those_of_a_newer_version() -> None:
    facts = JobFacts.model_validate({"cpus": 2, "reason": None, "energy_joules": 5})
    assert facts.model_dump() == {"cpus": 2, "energy_joules": 5}
