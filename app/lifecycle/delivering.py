"""Sends what is due: claim, send, settle; a passing failure is tried again, a permanent one is kept."""

import logging
import random
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from app.errors import DeliveryFailed
from app.models.record import Notification, NotificationStatus
from app.senders import Message, Sender
from app.store import Claim, Outcome, TaskStore

logger = logging.getLogger(__name__)

_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=30)


class Delivery:
    """At least once: a message may come twice after a crash, then with the same key."""

    def __init__(
        self,
        store: TaskStore,
        senders: Mapping[str, Sender],
        *,
        claim_for: timedelta,
        retry_for: timedelta,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._senders = senders
        self._claim_for = claim_for
        self._retry_for = retry_for
        self._jitter = jitter  # between 0 and 1

    @property
    def methods(self) -> list[str]:
        return list(self._senders)

    def deliver_one(self, method: str, now: datetime) -> bool:
        """Tries one message of `method` that is due; False if there is none."""
        claim = self._store.claim(method, secrets.token_hex(8), now, now + self._claim_for)
        if claim is None:
            return False
        outcome = self._attempt(claim, now)
        if outcome.error:
            logger.warning("message %s by %s: %s", claim.notification.id, method, outcome.error)
        self._store.settle(claim, outcome)
        return True

    def _attempt(self, claim: Claim, now: datetime) -> Outcome:
        item = claim.notification
        try:
            self._senders[item.method].send(Message(item.id, item.params, item.subject, item.text))
        except DeliveryFailed as error:
            return self._failed(item, error, now)
        except Exception as error:  # a sender's own fault must not lose the message
            logger.exception("the sender %s failed on message %s", item.method, item.id)
            words = f"the sender failed: {type(error).__name__}"
            return self._failed(item, DeliveryFailed(words, permanent=False), now)
        return Outcome(NotificationStatus.SENT, now)

    def _failed(self, item: Notification, error: DeliveryFailed, now: datetime) -> Outcome:
        attempt_after = now + max(self._wait(item.attempts), timedelta(seconds=error.wait or 0))
        if error.permanent or attempt_after > item.created_at + self._retry_for:
            return Outcome(NotificationStatus.DEAD, now, error=str(error))
        return Outcome(NotificationStatus.RETRYING, now, attempt_after=attempt_after, error=str(error))

    def _wait(self, attempts: int) -> timedelta:
        """Doubles with each attempt, up to half an hour; jittered between half and the whole of it."""
        doublings = min(attempts - 1, 20)
        full = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
        return full * (0.5 + self._jitter() / 2)
