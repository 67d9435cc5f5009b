"""Deliver notifications."""

from datetime import timedelta

from app.errors import (
    DeliveryFailed,
)
from app.job_state import JobState
from app.models.record import NotificationStatus, utc_now
from tests.support.lifecycle import CATALOGUE, MINUTE, Service
from tests.support.tasks import make_email


def test_a_passing_failure_is_tried_again_and_then_sent_once(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("busy", permanent=False, retry_after=60.0)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    (item,) = service.record(task).notifications
    assert (item.status, item.last_error) == (NotificationStatus.RETRYING, "busy")
    assert item.attempt_after is not None
    assert item.attempt_after >= utc_now() + timedelta(seconds=55)
    service.deliver()
    assert service.email.messages == []
    service.deliver(utc_now() + 2 * MINUTE)
    service.deliver(utc_now() + 9 * MINUTE)
    assert [message.id for message in service.email.messages] == [item.id]
    assert service.record(task).notifications[0].status is NotificationStatus.SENT


def test_a_permanent_failure_is_dead_with_its_reason(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("550 no such user", permanent=True)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    service.deliver(utc_now() + timedelta(days=2))
    (item,) = service.record(task).notifications
    assert (item.status, item.last_error) == (NotificationStatus.DEAD, "550 no such user")


def test_waits_double_and_end_when_the_time_is_over(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("busy", permanent=False) for _ in range(100)]
    service.move(job_id, JobState.COMPLETED)
    now, waits = utc_now(), []
    for _ in range(12):
        service.deliver(now)
        (item,) = service.record(task).notifications
        assert item.attempt_after is not None
        waits.append(round((item.attempt_after - now).total_seconds()))
        now = item.attempt_after + timedelta(milliseconds=1)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]
    service.deliver(now + timedelta(days=1))
    assert service.record(task).notifications[0].status is NotificationStatus.DEAD


def test_a_fault_in_a_sender_loses_nothing(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [ZeroDivisionError()]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    assert service.record(task).notifications[0].status is NotificationStatus.RETRYING
    service.deliver(utc_now() + MINUTE)
    assert len(service.email.messages) == 1


def test_a_message_whose_text_was_not_stored_is_never_sent_empty(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.COMPLETED)
    with service.store.writing() as connection:
        connection.execute("UPDATE notifications SET message = json_set(message, '$.content', NULL)")
    service.deliver()
    (item,) = service.record(task).notifications
    assert (item.status, item.last_error) == (NotificationStatus.DEAD, "it was too large to be stored")
    assert service.email.messages == []


def test_a_claimant_that_died_is_followed_by_another(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.COMPLETED)
    now = utc_now()
    assert service.store.claim("email", "the dead", now, now + MINUTE)
    service.deliver(now)
    assert service.email.messages == []
    service.deliver(now + 2 * MINUTE)
    assert [message.id for message in service.email.messages] == [service.record(task).notifications[0].id]


def test_each_recipient_has_a_message_of_his_own(service: Service) -> None:
    people = ["a@example.com", "b@example.com", "a@example.com"]
    task, job_id = service.submit(notification=make_email(recipient=people))
    service.email.failures = [DeliveryFailed("550 no", permanent=True)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    statuses = {item.params["recipient"]: item.status for item in service.record(task).notifications}
    assert sorted(statuses.values()) == [NotificationStatus.DEAD, NotificationStatus.SENT]
    assert len(service.email.messages) == 1


def test_a_callers_parameters_never_reach_another_task(service: Service) -> None:
    notification = {"methods": ["email"], "params": {"email": {"recipient": "x@example.com"}}}
    service.submit(name="echo_hello_world", cmd=None, params=None, notification=notification)
    task, job_id = service.submit(name="echo_hello_world", cmd=None, params=None)
    service.move(job_id, JobState.COMPLETED)
    (item,) = service.record(task).notifications
    assert (item.method, item.params) == ("test", {"subject": "canned"})
    assert CATALOGUE["echo_hello_world"].notification.params["email"] == {"sender": "op@example.com"}
