"""The retry policy: when an undelivered message is sent again, and when the message is given up.

How long until an e-mail is retried? The answer is the same for every channel:

- A failure that another attempt cannot cure, such as an unknown address, is final: the message becomes a
  dead letter at once.
- After any other failure the message is tried again with exponential backoff: after at most 5 s, 10 s, 20 s,
  40 s and so on, up to 30 minutes (`FIRST_BACKOFF`, doubled with each attempt, up to `MAX_BACKOFF`). Jitter
  makes each of these delays between half and the whole of its length, so that many messages do not return
  together.
- The delay counts from the start of the attempt that failed. The first retry is due 2.5 to 5 s after the
  start of the first attempt. If that attempt took longer to fail, the retry is due at once.
- An attempt may be later than its due time. Each channel looks for due messages after every pause of
  MONITOR_POLLING_SECONDS, which jitter makes up to a tenth longer. The leader's channels also look as soon as
  a poll finds changes. A channel sends its messages one after another.
- A receiver may ask for a longer delay (`Retry-After`); that is respected up to one hour (`MAX_RETRY_AFTER`).
- The retry deadline is `DeliveryPolicy.retry_window` after the message became due
  (NOTIFICATIONS_RETRY_SECONDS, by default one day). A message whose next attempt would be later is given up:
  it becomes a dead letter. An operator's retry begins a new window.

Three rules outside this module also delay a message, without an attempt:

- A receiver that fails for several messages in a row is in backoff, which delays its other messages. So is a
  channel that fails for several, for example because of a wrong password: this delays all its messages. See
  `receiver_backoff`.
- A message over the rate limit waits for the end of the window, a retry too (`_defer_to_digest` in
  `deliver.py`). A first attempt is then sent in a digest.
- A message whose process dies while sending can be claimed again after NOTIFICATIONS_CLAIM_SECONDS.

All functions here are pure: they read no clock and draw no random number.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.models.record import Notification

FIRST_BACKOFF = timedelta(seconds=5)  # after the first failed attempt
MAX_BACKOFF = timedelta(minutes=30)
MAX_RETRY_AFTER = timedelta(hours=1)  # the longest delay that a receiver may ask for
_MAX_DOUBLINGS = 20  # far beyond MAX_BACKOFF; the number of attempts has no limit


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """The time limits and the rate limit of delivery, from the settings."""

    claim_timeout: timedelta  # after it, another process may claim a message that is being sent
    retry_window: timedelta  # from the time when a message is due to its retry deadline
    rate_limit: int = 0  # messages to one receiver by one method in a rate window; 0 means no limit
    rate_window: timedelta = timedelta(minutes=10)


def backoff_delay(attempts: int, jitter: float) -> timedelta:
    """Return how long to wait after the `attempts`-th failed attempt; `jitter` is between 0 and 1."""
    doublings = min(attempts - 1, _MAX_DOUBLINGS)
    longest = min(FIRST_BACKOFF * (1 << doublings), MAX_BACKOFF)
    return longest * (0.5 + jitter / 2)


def requested_delay(retry_after: float | None) -> timedelta:
    """Return the delay that a receiver asked for in seconds, limited to MAX_RETRY_AFTER."""
    return min(timedelta(seconds=retry_after or 0), MAX_RETRY_AFTER)


def retry_deadline(item: Notification, policy: DeliveryPolicy) -> datetime:
    """Return the time after which the message is not tried again."""
    return (item.revived_at or item.created_at) + policy.retry_window


def next_attempt(
    item: Notification, policy: DeliveryPolicy, requested: timedelta, now: datetime, jitter: float
) -> datetime | None:
    """Return when to try the message again after a failure; None if the message is given up.

    `now` is the start of the failed attempt. `item.attempts` includes this attempt. `requested`
    is the delay that the receiver asked for.
    """
    at = now + max(backoff_delay(item.attempts, jitter), requested)
    return at if at <= retry_deadline(item, policy) else None
