"""Sends what is due: claim, send, settle; a passing failure is tried again, a permanent one is kept."""

import hashlib
import logging
import random
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from app.errors import DeliveryFailed
from app.messages.rendering import digest
from app.models.content import Content
from app.models.record import Notification, NotificationStatus
from app.outages import OutageLog
from app.senders import Message, Sender, settings_prefix
from app.store import Claim, Outcome, TaskStore

logger = logging.getLogger(__name__)

_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=30)
_LONGEST_ASKED = timedelta(hours=1)  # that a receiver can have us wait
_FORGOTTEN = timedelta(hours=1)  # after a pause
_FAILURES = 3  # of different messages in a row, before their receiver is left alone


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, and how much is too much."""

    claim_for: timedelta  # how long a message may be in sending
    retry_for: timedelta  # how long it is tried again
    ceiling: int = 0  # messages to one person by one method in a window; 0: any number
    window: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class _Pause:
    """The backoff of a receiver, or of a whole channel, that failed.

    The messages of a receiver that is paused delay no others of their channel. The messages of a channel
    that is paused are not tried one after another, because all would fail for the same reason.
    """

    since: datetime
    until: datetime
    why: str
    failures: int  # of different messages, in a row
    message: str  # the last one


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
        outages: OutageLog | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._senders = senders
        self._patience = patience
        self._context = dict(context or {})
        self._outages = outages or OutageLog()
        self._jitter = jitter  # between 0 and 1
        # By method, or by all addresses of a message: a receiver may refuse one sender and accept another.
        self._pauses: dict[str, _Pause] = {}
        self._pausing = threading.Lock()  # each method has a thread of its own
        self.methods = methods  # all that there are, with a sender or without

    def deliver_one(self, method: str, now: datetime) -> bool:
        """Try one message of `method` that is due; return False if there is none."""
        token = secrets.token_hex(8)
        latest = now + max(_LONGEST_ASKED, self._patience.window)
        claim = self._store.claim(method, token, now, now + self._patience.claim_for, latest)
        if claim is None:
            if method in self._senders:
                self._senders[method].rest()
            return False
        try:
            outcome = self._outcome(claim, now)
        except DeliveryFailed as error:
            outcome = self._failed(claim.notification, error, now)
        self._store.settle(claim, outcome)
        return True

    def close(self) -> None:
        """Close the connections that senders keep, because nothing is sent any more."""
        for sender in self._senders.values():
            sender.rest()

    def _outcome(self, claim: Claim, now: datetime) -> Outcome:
        """Try to send a claimed message; return what became of it.

        Raises:
            DeliveryFailed: The message itself, and not its receiver, is the cause of the failure.
        """
        item = claim.notification
        sender = self._senders.get(item.method)
        if sender is None:
            words = f"this server is not configured for {item.method}: set {settings_prefix(item.method)}*"
            raise DeliveryFailed(words, permanent=False)
        params = self._params(sender, item)
        receiver = f"{item.method}:{sender.receiver(params)}"
        addresses = params.model_dump_json(exclude={"subject", "body", "msg"})
        group = f"{receiver} {hashlib.sha256(addresses.encode()).hexdigest()[:16]}"
        if (pause := self._running_pause(item, group, now)) is not None:
            return self._put_off(item, pause, now)
        if (opens := self._full_until(sender, receiver, now)) is not None:
            return self._held_back(item, group, opens, now)
        try:
            self._send(sender, claim, params, now)
        except DeliveryFailed as error:
            if sender.for_people and self._patience.ceiling:
                self._store.give_slot_back(receiver)
            return self._failed(item, error, now, group)
        with self._pausing:
            for name in (item.method, group):
                self._pauses.pop(name, None)
        for name in (item.method, group):
            self._outages.worked(name)
        return Outcome(NotificationStatus.SENT, now)

    def _running_pause(self, item: Notification, group: str, now: datetime) -> _Pause | None:
        """Return the pause that this message has to wait for, or None.

        After an operator's retry of the message, only a pause that began later delays it.
        """
        # A pause beyond the retry deadline, or from before the clock was set back, does not count.
        latest = min(self._last_moment(item), now + _LONGEST_ASKED)
        for name in (item.method, group):
            pause = self._pauses.get(name)
            if pause is None or not now < pause.until <= latest:
                continue
            if item.revived_at is None or item.revived_at < pause.since:
                return pause
        return None

    def _put_off(self, item: Notification, pause: _Pause, now: datetime) -> Outcome:
        """Without an attempt: its receiver has not taken several others."""
        why = item.last_error if item.attempts > 1 else f"not tried yet, as others failed: {pause.why}"
        return Outcome(NotificationStatus.RETRYING, now, pause.until, why, was_attempt=False)

    def _held_back(self, item: Notification, group: str, opens: datetime, now: datetime) -> Outcome:
        """Hold the message back for a digest with others of the same addresses.

        A message that may have arrived already is not put into a digest.
        """
        may_have_arrived = item.attempts > 1 or item.revived_at is not None
        if may_have_arrived and item.digest is None:
            return Outcome(NotificationStatus.RETRYING, now, opens, item.last_error, was_attempt=False)
        return Outcome(NotificationStatus.GATHERED, now, opens, item.last_error, group, was_attempt=False)

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
        message = Message(item.id, item.event, item.content or Content(subject=""))
        if item.recipient is not None:  # it was held back: the others that were go with it
            id_, gathered = self._store.gather(claim, now, secrets.token_hex(16))
            others = [other.notification.content for other in gathered if other.notification.content]
            if others:
                message = Message(id_, "digest", digest([message.content, *others]))
        try:
            sender.send(message, params)
        except DeliveryFailed:
            raise
        except Exception as error:  # a sender's own fault must not lose the message
            words = f"the sender failed: {type(error).__name__}"
            self._outages.failed(
                f"the sender {item.method}", f"{words} (message {item.id})", item.method, error
            )
            raise DeliveryFailed(words, permanent=False) from error

    def _failed(
        self, item: Notification, error: DeliveryFailed, now: datetime, group: str | None = None
    ) -> Outcome:
        """Return what becomes of a message that was not delivered, and log it."""
        outcome = self._after_failure(item, error, now, group)
        if outcome.status is NotificationStatus.DEAD:
            logger.warning("message %s by %s is dead: %s", item.id, item.method, error)
        else:
            source = item.method if error.is_of_channel or group is None else group
            self._outages.failed(
                f"the channel {item.method}", f"message {item.id} is retried: {error}", source
            )
        return outcome

    def _after_failure(
        self, item: Notification, error: DeliveryFailed, now: datetime, group: str | None
    ) -> Outcome:
        if error.permanent:
            return Outcome(NotificationStatus.DEAD, now, error=error.for_callers)
        asked = min(timedelta(seconds=error.wait or 0), _LONGEST_ASKED)
        if group is not None:
            with self._pausing:
                self._pause(
                    item.method if error.is_of_channel else group, item, error.for_callers, asked, now
                )
        until = now + max(self._wait(item.attempts), asked)
        if until > self._last_moment(item):
            return Outcome(NotificationStatus.DEAD, now, error=error.for_callers)
        return Outcome(NotificationStatus.RETRYING, now, until, error.for_callers)

    def _pause(self, name: str, item: Notification, why: str, asked: timedelta, now: datetime) -> None:
        """Record a failure; after several different messages in a row, pause the receiver or the channel.

        `name` is the method if every message by it would fail, else the key of the receiver.
        """
        self._pauses = {key: pause for key, pause in self._pauses.items() if now < pause.until + _FORGOTTEN}
        last = self._pauses.get(name)
        failures = last.failures if last else 0
        if last is None or last.message != item.id:
            failures += 1
        wait = max(asked, self._wait(failures - _FAILURES + 1)) if failures >= _FAILURES else asked
        self._pauses[name] = _Pause(now, now + wait, why, failures, item.id)

    def _last_moment(self, item: Notification) -> datetime:
        """Until when it may be tried."""
        return (item.revived_at or item.created_at) + self._patience.retry_for

    def _wait(self, attempts: int) -> timedelta:
        """Doubles with each attempt, up to half an hour; jittered between half and the whole of it."""
        doublings = min(attempts - 1, 20)
        full = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
        return full * (0.5 + self._jitter() / 2)
