"""One message in a store, the deliveries of it that processes try, and what tests ask of them."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import DeliveryFailed
from app.lifecycle.deliver import Delivery
from app.lifecycle.retry_policy import DeliveryPolicy
from app.models.content import Content
from app.models.job_facts import JobFacts
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.senders import SENDERS, Message, Sender
from app.store.notification_queue import Claim, Outcome
from app.store.sqlite import SqliteStore
from tests.support.channels import (
    Channel,
)
from tests.support.tasks import make_task, new_uuid

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CLAIM_FOR = timedelta(minutes=3)
POLICY = DeliveryPolicy(claim_timeout=CLAIM_FOR, retry_window=timedelta(days=1))
CONTENT = Content(
    subject="Größe: the job has ended — well",
    words="Hello, Ünï!\n.\nThe results are in $HOME.",
    facts=JobFacts.model_validate(
        {"slurm_job_id": 4711, "slurm_job_state": "COMPLETED", "name": "a job", "exit_code": 0}
    ),
    hint="Ask for 2 GB the next time.",
)


class Killed(BaseException):
    """The process is killed: an exception that no code of the service handles."""


class CrashingStore(SqliteStore):
    """A store whose process is killed after a message was sent, and before this is recorded."""

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        raise Killed


class Outbox:
    """One message by one channel in a real store, and the deliveries that processes try of it."""

    def __init__(self, path: Path, channel: Channel, content: Content = CONTENT, **params: Any) -> None:
        self.path = path
        self.channel = channel
        self.settings, self.sender = channel.configured()
        self.store = SqliteStore(path)
        self.store.prepare()
        task = make_task()
        self.id = new_uuid()
        self.task_uuid = task["uuid"]
        self.key = self.id if channel.key_is_id else self.task_uuid
        notification = Notification(
            id=self.id,
            event="end",
            method=channel.method,
            params={**channel.params(), **params},
            content=content.model_copy(
                update={"facts": content.facts.model_copy(update={"task_uuid": task["uuid"]})}
            ),
            status=NotificationStatus.DUE,
            created_at=NOW,
            attempt_after=NOW,
        )
        self.store.add_record(
            TaskRecord(
                task=task,
                slurm_username=task["username"],
                created_at=NOW,
                updated_at=NOW,
                notifications=(notification,),
            )
        )
        self.delivery = self.delivery_of_another_process()

    def delivery_of_another_process(
        self, store: SqliteStore | None = None, sender: Sender | None = None, **settings: Any
    ) -> Delivery:
        context = {"settings": self.settings.model_copy(update=settings)}
        method = self.channel.method
        return Delivery(
            store or self.store,
            {method: sender or self.sender},
            POLICY,
            methods=[method],
            context=context,
            jitter=lambda: 1.0,
        )

    def deliver(self, now: datetime = NOW, delivery: Delivery | None = None) -> Notification:
        """Try the message, which must be due, and return its status."""
        assert (delivery or self.delivery).deliver_one(self.channel.method, now), "nothing was due"
        return self.notification()

    def is_due(self, now: datetime) -> bool:
        return self.delivery.deliver_one(self.channel.method, now)

    def notification(self) -> Notification:
        claim = self.store.find_notification(self.id)
        assert claim is not None
        return claim.notification


def opened(outbox: Outbox) -> Iterator[Outbox]:
    yield outbox
    outbox.store.close()


def failure_of(sender: Sender, params: dict[str, Any], content: Content = CONTENT) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as failure:
        sender.send(Message("key-1", "end", content), sender.Params.model_validate(params))
    return failure.value


def in_time(call: Callable[[], Any], seconds: float) -> Any:
    """Return what `call` returns; fail if it takes too long, and let it go on in the background."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"it did not end well within {seconds} s"
    return results[0]


def assert_readable(words: str | None, channel: Channel) -> None:
    """Check that the text is a readable sentence, without secrets of the channel."""
    assert words
    assert not words.rstrip().endswith((":", "()"))
    for fragment in ("Traceback", "object at", "<", ">", "\n", *channel.secrets):
        assert fragment not in words, words


def is_accepted(method: str, params: dict[str, Any], settings: Any) -> bool:
    try:
        SENDERS[method].Params.model_validate(params, context={"settings": settings})
    except ValidationError:
        return False
    return True
