"""Requests that are refused before anything is stored."""

import pytest

from app.errors import (
    InvalidRequest,
)
from app.job_state import JobState
from app.models.array_indices import count_array_tasks
from tests.support.lifecycle import Service
from tests.support.tasks import make_email


def test_messages_that_would_fill_the_database_are_refused(service: Service) -> None:
    people = [f"p{number}@example.com" for number in range(100)]
    with pytest.raises(InvalidRequest, match="must not take more than 262144 bytes"):
        service.submit(notification=make_email(recipient=people, body="x" * 10_000))
    assert service.slurm.calls == []
    service.submit(notification=make_email(body="x" * 200_000))
    service.submit(notification=make_email(recipient=people, body="x" * 2_000))


def test_a_hundred_long_addresses_are_not_too_many(service: Service) -> None:
    people = [f"somebody.with.a.long.name.{number:03}@a-long-domain.example.com" for number in range(100)]
    task, job_id = service.submit(notification=make_email(recipient=people))
    service.move(job_id, JobState.COMPLETED)
    assert len(service.record(task).notifications) == 100


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("0", 1),
        ("0-3", 4),
        ("1-9:4", 3),
        ("0-15%4", 16),
        ("1,3,5-7", 5),
        ("0-3,2", 4),
        ("x", None),
        ("0-3:0", None),
        ("1-9999999999", None),
        ("0-000000001" + "9" * 30, None),
        ("000000003-000000005", 3),
        ("0-4000000," * 90 + "1", None),
        ("", None),
    ],
)
def test_the_size_of_an_array(spec: str, size: int | None) -> None:
    assert count_array_tasks(spec) == size
