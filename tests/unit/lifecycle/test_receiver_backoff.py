"""The backoff of receivers that fail: when it begins, how long it lasts, and for which messages."""

from datetime import UTC, datetime, timedelta

import pytest

from app.lifecycle.receiver_backoff import FAILURES_BEFORE_BACKOFF, ReceiverBackoffs
from app.lifecycle.retry_policy import MAX_RETRY_AFTER

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NONE = timedelta(0)
DEADLINE = NOW + 24 * HOUR


@pytest.fixture
def backoffs() -> ReceiverBackoffs:
    return ReceiverBackoffs(jitter=lambda: 1.0)


def fail(backoffs: ReceiverBackoffs, count: int, at: datetime = NOW, name: str = "ann") -> None:
    for number in range(count):
        backoffs.record_failure(name, f"message-{number}", "busy", NONE, at)


def is_running(backoffs: ReceiverBackoffs, at: datetime = NOW, *names: str) -> bool:
    return backoffs.find_running(names or ("ann",), at, DEADLINE, None) is not None


def test_backoff_begins_after_failures_of_several_messages(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF - 1)
    assert not is_running(backoffs)
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    found = backoffs.find_running(["email", "ann"], NOW, DEADLINE, None)
    assert found is not None
    assert (found.reason, found.message_id) == ("busy", f"message-{FAILURES_BEFORE_BACKOFF - 1}")


def test_backoff_does_not_begin_when_one_message_fails_repeatedly(backoffs: ReceiverBackoffs) -> None:
    for _ in range(10):
        backoffs.record_failure("ann", "message-1", "busy", NONE, NOW)
    assert not is_running(backoffs)


def test_backoff_doubles_with_each_further_failure(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    assert is_running(backoffs, NOW + 4 * SECOND)
    assert not is_running(backoffs, NOW + 5 * SECOND)
    backoffs.record_failure("ann", "another", "busy", NONE, NOW)
    assert is_running(backoffs, NOW + 9 * SECOND)
    assert not is_running(backoffs, NOW + 10 * SECOND)


def test_backoff_that_the_receiver_asked_for_begins_at_the_first_failure(backoffs: ReceiverBackoffs) -> None:
    backoffs.record_failure("ann", "message-1", "busy", 60 * SECOND, NOW)
    assert is_running(backoffs, NOW + 59 * SECOND)
    assert not is_running(backoffs, NOW + 60 * SECOND)


def test_backoff_of_one_receiver_delays_no_other(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    assert not is_running(backoffs, NOW, "bob", "email")


def test_backoff_ends_with_a_success(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    backoffs.record_success("email", "ann")
    assert not is_running(backoffs)


def test_backoff_beyond_the_retry_deadline_of_a_message_does_not_delay_it(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    assert backoffs.find_running(["ann"], NOW, NOW + 4 * SECOND, None) is None


def test_backoff_from_before_the_clock_was_set_back_does_not_count(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF, at=NOW + 2 * MAX_RETRY_AFTER)
    assert not is_running(backoffs)


def test_backoff_delays_a_message_that_was_retried_only_if_it_began_later(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    at = NOW + SECOND
    assert backoffs.find_running(["ann"], at, DEADLINE, retried_at=NOW) is None
    assert backoffs.find_running(["ann"], at, DEADLINE, retried_at=NOW - SECOND) is not None


def test_failures_are_forgotten_an_hour_after_their_backoff(backoffs: ReceiverBackoffs) -> None:
    fail(backoffs, FAILURES_BEFORE_BACKOFF)
    later = NOW + 2 * HOUR
    fail(backoffs, FAILURES_BEFORE_BACKOFF - 1, at=later, name="bob")  # which forgets old ones
    backoffs.record_failure("ann", "another", "busy", NONE, later)
    assert not is_running(backoffs, later)
