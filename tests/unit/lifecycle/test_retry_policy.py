"""The retry policy: pure functions from attempts and times to the next attempt."""

from datetime import UTC, datetime, timedelta

import pytest

from app.lifecycle.retry_policy import (
    FIRST_BACKOFF,
    MAX_BACKOFF,
    MAX_RETRY_AFTER,
    DeliveryPolicy,
    backoff_delay,
    next_attempt,
    requested_delay,
    retry_deadline,
)
from app.models.record import Notification, NotificationStatus

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
POLICY = DeliveryPolicy(claim_timeout=timedelta(minutes=3), retry_window=DAY)
NONE = timedelta(0)


def make_item(
    attempts: int = 1, created_at: datetime = NOW, revived_at: datetime | None = None
) -> Notification:
    return Notification(
        id="message-1",
        event="end",
        method="email",
        params={},
        status=NotificationStatus.CLAIMED,
        created_at=created_at,
        attempts=attempts,
        revived_at=revived_at,
    )


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (9, 1280), (10, 1800), (11, 1800), (1_000_000, 1800)],
)
def test_backoff_delay_doubles_with_each_attempt_up_to_its_maximum(attempts: int, seconds: float) -> None:
    assert backoff_delay(attempts, jitter=1.0) == seconds * SECOND


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_backoff_delay_with_jitter_is_between_half_and_the_whole(jitter: float) -> None:
    assert FIRST_BACKOFF / 2 <= backoff_delay(1, jitter) <= FIRST_BACKOFF
    assert MAX_BACKOFF / 2 <= backoff_delay(99, jitter) <= MAX_BACKOFF


@pytest.mark.parametrize(
    ("retry_after", "delay"), [(None, NONE), (0.0, NONE), (30.0, 30 * SECOND), (1e9, MAX_RETRY_AFTER)]
)
def test_requested_delay_is_limited(retry_after: float | None, delay: timedelta) -> None:
    assert requested_delay(retry_after) == delay


def test_retry_deadline_counts_from_when_the_message_became_due() -> None:
    assert retry_deadline(make_item(), POLICY) == NOW + DAY


def test_retry_deadline_after_a_retry_by_an_operator_counts_from_that_retry() -> None:
    assert retry_deadline(make_item(revived_at=NOW + HOUR), POLICY) == NOW + HOUR + DAY


def test_next_attempt_is_after_the_backoff_delay() -> None:
    assert next_attempt(make_item(attempts=3), POLICY, NONE, NOW, jitter=1.0) == NOW + 20 * SECOND


def test_next_attempt_respects_a_longer_delay_that_the_receiver_asked_for() -> None:
    assert next_attempt(make_item(), POLICY, 90 * SECOND, NOW, jitter=1.0) == NOW + 90 * SECOND
    assert next_attempt(make_item(), POLICY, SECOND, NOW, jitter=1.0) == NOW + 5 * SECOND


def test_next_attempt_at_the_retry_deadline_is_still_made() -> None:
    at = NOW + DAY - 5 * SECOND
    assert next_attempt(make_item(), POLICY, NONE, at, jitter=1.0) == NOW + DAY


def test_next_attempt_beyond_the_retry_deadline_is_none() -> None:
    at = NOW + DAY - 4 * SECOND
    assert next_attempt(make_item(), POLICY, NONE, at, jitter=1.0) is None
    assert next_attempt(make_item(), POLICY, HOUR, NOW + DAY - HOUR + SECOND, jitter=0.0) is None
