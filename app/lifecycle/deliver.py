"""The claim loop of delivery: claim a due notification, send the message, and store the outcome.

`retry_policy` decides when a message is tried again and when it is given up. `receiver_backoff` spares
receivers and channels that keep failing.
"""

import hashlib
import logging
import random
import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from app.errors import DeliveryFailed
from app.lifecycle.receiver_backoff import ReceiverBackoff, ReceiverBackoffs
from app.lifecycle.retry_policy import (
    MAX_RETRY_AFTER,
    DeliveryPolicy,
    next_attempt,
    requested_delay,
    retry_deadline,
)
from app.messages.rendering import compose_digest
from app.metrics import DELIVERIES, Metrics
from app.models.record import Notification, NotificationStatus
from app.outages import OutageLog
from app.senders import Message, Sender, settings_prefix
from app.store.notification_queue import Claim, NotificationQueue, Outcome
from app.store.rate_limiter import RateLimiter

logger = logging.getLogger(__name__)


class _DeliveryStore(NotificationQueue, RateLimiter, Protocol):
    """The parts of a store that delivery uses."""


class Delivery:
    """Delivers messages at least once. Thread-safe: each channel has a thread of its own.

    A message may arrive twice after a crash, then with the same id.
    """

    def __init__(
        self,
        store: _DeliveryStore,
        senders: Mapping[str, Sender],
        policy: DeliveryPolicy,
        *,
        methods: Collection[str],
        context: Mapping[str, Any] | None = None,
        outages: OutageLog | None = None,
        metrics: Metrics | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create a delivery by the configured channels, `senders`; `methods` are all channels that exist.

        `context`: the validation context of parameters. `jitter` returns a number between 0 and 1.
        """
        self._queue: NotificationQueue = store
        self._rate_limiter: RateLimiter = store
        self._senders = senders
        self._policy = policy
        self._context = dict(context or {})
        self._outages = outages or OutageLog()
        self._metrics = metrics or Metrics()
        self._jitter = jitter
        # By method, or by digest key: a receiver may refuse one sender of mail and accept another.
        self._backoffs = ReceiverBackoffs(jitter)
        self.methods = methods

    def deliver_one(self, method: str, now: datetime) -> bool:
        """Claim and try to send one due notification of `method`; return False if none is due."""
        token = secrets.token_hex(8)
        latest = now + max(MAX_RETRY_AFTER, self._policy.rate_window)
        claim = self._queue.claim(method, token, now, now + self._policy.claim_timeout, latest)
        if claim is None:
            if method in self._senders:
                self._senders[method].close_idle()
            return False
        try:
            outcome = self._attempt(claim, now)
        except DeliveryFailed as error:
            outcome = self._outcome_of_failure(claim.notification, error, now)
        self._queue.settle(claim, outcome)
        self._metrics.count(DELIVERIES, method, outcome.status)
        return True

    def close(self) -> None:
        """Close the idle connections of all channels, because nothing is sent any more."""
        for sender in self._senders.values():
            sender.close_idle()

    def _attempt(self, claim: Claim, now: datetime) -> Outcome:
        """Send a claimed message, unless a backoff or the rate limit applies; return the outcome.

        Raises:
            DeliveryFailed: The message itself, and not its receiver, is the cause of the failure.
        """
        item = claim.notification
        sender = self._senders.get(item.method)
        if sender is None:
            words = f"this server is not configured for {item.method}: set {settings_prefix(item.method)}*"
            raise DeliveryFailed(words, permanent=False)
        params = self._params(sender, item)
        receiver = f"{item.method}:{sender.receiver_key(params)}"
        digest_key = _digest_key(receiver, params, sender.text_params())
        names = (item.method, digest_key)
        deadline = retry_deadline(item, self._policy)
        if (backoff := self._backoffs.find_running(names, now, deadline, item.revived_at)) is not None:
            return _postpone(item, backoff, now)
        if (window_end := self._rate_limited_until(sender, receiver, now)) is not None:
            return _defer_to_digest(item, digest_key, window_end, now)
        try:
            self._send(sender, claim, params, now)
        except DeliveryFailed as error:
            if sender.rate_limited and self._policy.rate_limit:
                self._rate_limiter.refund(receiver)
            return self._outcome_of_failure(item, error, now, digest_key)
        self._backoffs.record_success(*names)
        for name in names:
            self._outages.record_success(name)
        return Outcome(NotificationStatus.SENT, now)

    def _params(self, sender: Sender, item: Notification) -> Any:
        try:
            return sender.Params.model_validate(item.params, context=self._context)
        except ValidationError as error:
            words = error.errors(include_input=False)[0]["msg"]
            raise DeliveryFailed(f"its parameters are no longer valid: {words}", permanent=True) from error

    def _rate_limited_until(self, sender: Sender, receiver: str, now: datetime) -> datetime | None:
        """Count a message to the receiver; return None within the rate limit, else the window's end."""
        if not (sender.rate_limited and self._policy.rate_limit):
            return None
        window_end = now + self._policy.rate_window
        return self._rate_limiter.acquire(receiver, self._policy.rate_limit, now, window_end).full_until

    def _send(self, sender: Sender, claim: Claim, params: Any, now: datetime) -> None:
        """Send the message; after the end of a rate limit, together with the others of its digest.

        Raises:
            DeliveryFailed: The message was not sent.
        """
        item = claim.notification
        if item.content is None:
            raise DeliveryFailed("it was too large to be stored", permanent=True)
        message = Message(item.id, item.event, item.content)
        if item.recipient is not None:
            id_, gathered = self._queue.form_digest(claim, now, secrets.token_hex(16))
            others = [other.notification.content for other in gathered if other.notification.content]
            if others:
                message = Message(id_, "digest", compose_digest([message.content, *others]))
        try:
            sender.send(message, params)
        except DeliveryFailed:
            raise
        except Exception as error:  # an unexpected error in a channel must not lose the message
            words = f"the sender failed: {type(error).__name__}"
            self._outages.record_failure(
                f"the sender {item.method}", f"{words} (message {item.id})", item.method, error
            )
            raise DeliveryFailed(words, permanent=False) from error

    def _outcome_of_failure(
        self, item: Notification, error: DeliveryFailed, now: datetime, digest_key: str | None = None
    ) -> Outcome:
        """Return the outcome of a failure, retry or dead letter, and log the failure.

        `digest_key`: None if the message never reached its channel, so that no receiver is to blame.
        """
        source = item.method if error.is_of_channel or digest_key is None else digest_key
        requested = requested_delay(error.retry_after_seconds)
        if digest_key is not None and not error.permanent:
            self._backoffs.record_failure(source, item.id, error.for_callers, requested, now)
        at = None if error.permanent else next_attempt(item, self._policy, requested, now, self._jitter())
        if at is None:
            logger.warning("message %s by %s is dead: %s", item.id, item.method, error)
            return Outcome(NotificationStatus.DEAD, now, error=error.for_callers)
        words = f"message {item.id} is retried: {error}"
        self._outages.record_failure(f"the channel {item.method}", words, source)
        return Outcome(NotificationStatus.RETRYING, now, at, error.for_callers)


def _digest_key(receiver: str, params: BaseModel, text_params: set[str]) -> str:
    """Return the key of messages that may share a digest: their parameters differ in `text_params` only."""
    addresses = params.model_dump_json(exclude=text_params)
    return f"{receiver} {hashlib.sha256(addresses.encode()).hexdigest()[:16]}"


def _postpone(item: Notification, backoff: ReceiverBackoff, now: datetime) -> Outcome:
    """Return the outcome of a message that waits, without an attempt, for the end of a backoff."""
    reason = (
        item.last_error
        if item.attempts > 1
        else f"not sent yet, because other messages failed: {backoff.reason}"
    )
    return Outcome(NotificationStatus.RETRYING, now, backoff.until, reason, was_attempt=False)


def _defer_to_digest(item: Notification, digest_key: str, window_end: datetime, now: datetime) -> Outcome:
    """Return the outcome of a message over the rate limit, which waits to be sent in a digest.

    A message that may have arrived already is not put into a digest: it waits to be sent separately.
    """
    may_have_arrived = item.attempts > 1 or item.revived_at is not None
    if may_have_arrived and item.digest is None:
        return Outcome(NotificationStatus.RETRYING, now, window_end, item.last_error, was_attempt=False)
    return Outcome(
        NotificationStatus.GATHERED, now, window_end, item.last_error, digest_key, was_attempt=False
    )
