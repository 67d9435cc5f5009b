"""Sends what is due: claim, send, settle; a passing failure is tried again, a permanent one is kept."""

import logging
import random
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from app.errors import DeliveryFailed
from app.messages.layout import digest
from app.models.content import Content
from app.models.record import Notification, NotificationStatus
from app.senders import Message, Sender
from app.store import Claim, Outcome, TaskStore

logger = logging.getLogger(__name__)

_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, and how much is too much."""

    claim_for: timedelta  # how long a message may be in sending
    retry_for: timedelta  # how long it is tried again
    ceiling: int = 0  # messages to one person by one method in a window; 0: any number
    window: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class _Pause:
    """A receiver that failed is left alone for a while: its messages hold up no others of their channel."""

    until: datetime
    why: str
    failures: int  # in a row


class Delivery:
    """At least once: a message may come twice after a crash, then with the same key."""

    def __init__(
        self,
        store: TaskStore,
        senders: Mapping[str, Sender],
        patience: Patience,
        *,
        methods: Collection[str],
        context: Mapping[str, Any] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._senders = senders
        self._patience = patience
        self._context = dict(context or {})
        self._jitter = jitter  # between 0 and 1
        self._pauses: dict[str, _Pause] = {}  # by receiver
        self.methods = methods  # all that there are, with a sender or without

    def deliver_one(self, method: str, now: datetime) -> bool:
        """Tries one message of `method` that is due; False if there is none."""
        token = secrets.token_hex(8)
        claim = self._store.claim(method, token, now, now + self._patience.claim_for)
        if claim is None:
            return False
        try:
            outcome = self._outcome(claim, now)
        except DeliveryFailed as error:
            outcome = self._failed(claim.notification, error, now)
        if outcome.error and outcome.was_attempt:
            logger.warning("message %s by %s: %s", claim.notification.id, method, outcome.error)
        self._store.settle(claim, outcome)
        return True

    def _outcome(self, claim: Claim, now: datetime) -> Outcome:
        """DeliveryFailed for a failure that is the message's own, not its receiver's."""
        item = claim.notification
        sender = self._senders.get(item.method)
        if sender is None:
            raise DeliveryFailed(f"this server is not configured for {item.method}", permanent=False)
        params = self._params(sender, item)
        receiver = f"{item.method}:{sender.receiver(params)}"
        pause = self._pauses.get(receiver)
        if pause is not None and pause.until > now:
            return self._later(item, pause.until, pause.why, now, was_attempt=False)
        if (opens := self._full_until(sender, receiver, now)) is not None:
            return Outcome(NotificationStatus.GATHERED, now, opens, item.last_error, receiver, False)
        try:
            self._send(sender, claim, params, now)
        except DeliveryFailed as error:
            if sender.for_people and self._patience.ceiling:
                self._store.give_slot_back(receiver)
            return self._failed(item, error, now, receiver)
        self._pauses.pop(receiver, None)
        return Outcome(NotificationStatus.SENT, now)

    def _params(self, sender: Sender, item: Notification) -> Any:
        try:
            return sender.Params.model_validate(item.params, context=self._context)
        except ValidationError as error:
            words = error.errors(include_input=False)[0]["msg"]
            raise DeliveryFailed(f"its parameters are not taken any more: {words}", permanent=True) from error

    def _full_until(self, sender: Sender, receiver: str, now: datetime) -> datetime | None:
        """When this person may be written to again; None if now."""
        if not (sender.for_people and self._patience.ceiling):
            return None
        return self._store.take_slot(receiver, self._patience.ceiling, now, now + self._patience.window)

    def _send(self, sender: Sender, claim: Claim, params: Any, now: datetime) -> None:
        item = claim.notification
        contents = [item.content or Content(subject="")]
        if item.recipient is not None:  # it was held back: the others that were go with it
            gathered = self._store.gather(claim, now)
            contents += [other.notification.content for other in gathered if other.notification.content]
        content = digest(contents) if len(contents) > 1 else contents[0]
        event = "digest" if len(contents) > 1 else item.event
        try:
            sender.send(Message(item.id, event, content), params)
        except DeliveryFailed:
            raise
        except Exception as error:  # a sender's own fault must not lose the message
            logger.exception("the sender %s failed on message %s", item.method, item.id)
            words = f"the sender failed: {type(error).__name__}"
            raise DeliveryFailed(words, permanent=False) from error

    def _failed(
        self, item: Notification, error: DeliveryFailed, now: datetime, receiver: str | None = None
    ) -> Outcome:
        if error.permanent:
            return Outcome(NotificationStatus.DEAD, now, error=str(error))
        failures = 0
        if receiver is not None:
            failures = self._pauses[receiver].failures + 1 if receiver in self._pauses else 1
        until = now + max(self._wait(max(item.attempts, failures)), timedelta(seconds=error.wait or 0))
        if receiver is not None:
            self._pauses[receiver] = _Pause(until, str(error), failures)
        return self._later(item, until, str(error), now)

    def _later(
        self, item: Notification, until: datetime, why: str, now: datetime, *, was_attempt: bool = True
    ) -> Outcome:
        """Tried again then, unless that is too late."""
        if until > (item.revived_at or item.created_at) + self._patience.retry_for:
            return Outcome(NotificationStatus.DEAD, now, error=why, was_attempt=was_attempt)
        return Outcome(NotificationStatus.RETRYING, now, until, why, was_attempt=was_attempt)

    def _wait(self, attempts: int) -> timedelta:
        """Doubles with each attempt, up to half an hour; jittered between half and the whole of it."""
        doublings = min(attempts - 1, 20)
        full = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
        return full * (0.5 + self._jitter() / 2)
