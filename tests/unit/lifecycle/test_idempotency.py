"""Requests that are sent again with their idempotency key."""

from typing import Any

import pytest

from app.errors import (
    DuplicateUuid,
    IdempotencyKeyReused,
    SlurmAmbiguous,
)
from app.models.caller import OPERATOR
from app.models.record import utc_now
from tests.support.answers import body_of
from tests.support.lifecycle import MINUTE, Service, left_open
from tests.support.tasks import make_task


def test_a_retry_with_its_key_gets_the_first_answer(service: Service) -> None:
    task = make_task(notification={"methods": ["slack"]})
    first = body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key"))
    assert first["warnings"]
    assert body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key")) == first
    assert body_of(service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])) == first, (
        "the uuid is a key, too"
    )
    assert len(service.slurm.submitted) == 1


def test_a_key_stands_for_one_request(service: Service) -> None:
    task = make_task()
    service.submitter.submit(OPERATOR, {"task": task}, "a key")
    for other in (make_task(), {**task, "cmd": "rm"}):
        with pytest.raises(IdempotencyKeyReused):
            service.submitter.submit(OPERATOR, {"task": other}, "a key")
    with pytest.raises(IdempotencyKeyReused):
        service.submitter.submit(OPERATOR, {"task": {**task, "cmd": "rm"}}, task["uuid"])
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, "another key")
    assert len(service.slurm.submitted) == 1


def test_a_retry_before_the_outcome_is_known_is_ambiguous(service: Service) -> None:
    task = left_open(service, exists=True)
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])
    service.reconcile(utc_now() + MINUTE)
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}, task["uuid"]))
    assert answer["slurm_job_id"] in service.slurm.jobs
    assert len(service.slurm.submitted) == 1


def test_a_freed_uuid_tells_why_and_can_be_used_again_with_its_key(service: Service) -> None:
    task = make_task()
    service.slurm.failure = SlurmAmbiguous("time-out")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task}, "a key")
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).is_reserved, "its request may still be on its way"
    service.reconcile(utc_now() + 3 * MINUTE)
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert "made no job" in answer["monitor"]["submission_error"]
    assert answer["slurm"]["job_state"] is None
    again = body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key"))
    assert (
        body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["monitor"]["slurm_job_id"]
        == again["slurm_job_id"]
    )


@pytest.mark.parametrize(("first", "then"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, False)])
def test_a_key_tells_values_apart_that_python_does_not(service: Service, first: Any, then: Any) -> None:
    task = make_task(meta=first)
    service.submitter.submit(OPERATOR, {"task": task}, "k")
    with pytest.raises(IdempotencyKeyReused):
        service.submitter.submit(OPERATOR, {"task": {**task, "meta": then}}, "k")
