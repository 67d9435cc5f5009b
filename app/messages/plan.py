"""Decides who is told what, and when to look again. Pure: no clock, no database, no network."""

import copy
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.messages.compose import content
from app.messages.events import Event, Wishes, alarm, events_of
from app.models.content import Content
from app.models.job import SlurmJob
from app.models.notification_request import EventName, NotificationRequest
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.models.task import CatalogueEntry

Catalogue = Mapping[str, CatalogueEntry]


class Channel(Protocol):
    """What the text of a message needs of its channel, which alone knows the names of its parameters."""

    @property
    def rate_limited(self) -> bool: ...

    def own_subject(self, params: Mapping[str, Any], /) -> str: ...

    def own_text(self, params: Mapping[str, Any], /) -> str: ...

    def split_recipients(self, params: Mapping[str, Any], /) -> Mapping[str, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look at a job leads to."""

    notifications: tuple[Notification, ...]
    alarm_at: datetime | None


class Planner:
    """Knows the catalogue, and which channels this server is configured for."""

    def __init__(
        self, catalogue: Catalogue, methods: Collection[str], find_channel: Callable[[str], Channel]
    ) -> None:
        """Create a planner. `methods`: the configured ones; `find_channel` returns the channel of any."""
        self.catalogue = catalogue
        self._methods = methods
        self._find_channel = find_channel

    def at_submission(self, record: TaskRecord, at: datetime) -> Plan:
        """Return the notifications by channels that are not configured, and when to look for the first event.

        The record shows these notifications at once.
        """
        wishes = self._wishes(record)
        name = EventName.END if EventName.END in wishes else _name(wishes[0])
        notifications = [
            item
            for item in self._blanks(record, Event(name, name), at)
            if item.status is NotificationStatus.UNDELIVERABLE
        ]
        return Plan(tuple(notifications), alarm(wishes, record, record.job, at))

    def at_look(self, record: TaskRecord, job: SlurmJob, at: datetime) -> Plan:
        """Return the notifications that are due with this description of the job, and were not due before."""
        wishes = self._wishes(record)
        known = {notification.id for notification in record.notifications}
        asked = self._asked_events(record)
        due = [
            item.model_copy(update={"content": self._content(event, item, record, job)})
            for event in events_of(wishes, record, job, at)
            for item in self._blanks(record, event, at)
            if item.id not in known and (asked or self._is_default(event, item.method))
        ]
        return Plan(tuple(due), alarm(wishes, record, job, at))

    def _wishes(self, record: TaskRecord) -> Wishes:
        """Return the catalogue's events and the task's own, or the default if neither names any.

        The default is the end. People are also told that a job cannot start. A program that did not ask for
        this event may take every message for an end.
        """
        if asked := self._asked_events(record):
            return asked
        methods = merged_params(self.catalogue, record.task.get("name"), request_of(record.task))
        are_people_told = any(map(self._is_read_by_people, methods))
        return [EventName.END, EventName.CANNOT_START] if are_people_told else [EventName.END]

    def _asked_events(self, record: TaskRecord) -> Wishes:
        requests = _requests(self.catalogue, record.task.get("name"), request_of(record.task))
        return list(dict.fromkeys(wish for request in requests for wish in request.events or ()))

    def _is_default(self, event: Event, method: str) -> bool:
        """Return whether the method announces the event where no events are named."""
        return event.name != EventName.CANNOT_START or self._is_read_by_people(method)

    def _is_read_by_people(self, method: str) -> bool:
        return self._find_channel(method).rate_limited

    def _content(self, event: Event, item: Notification, record: TaskRecord, job: SlurmJob) -> Content:
        channel = self._find_channel(item.method)
        return content(event, channel.own_subject(item.params), channel.own_text(item.params), record, job)

    def _blanks(self, record: TaskRecord, event: Event, at: datetime) -> Iterator[Notification]:
        """Yield one notification for each method and each of its recipients: one may fail and another not."""
        wanted = request_of(record.task)
        for method, params in merged_params(self.catalogue, record.task.get("name"), wanted).items():
            for recipient, own in self._find_channel(method).split_recipients(params).items():
                can_send = method in self._methods
                words = f"{record.key or record.uuid} {event.key} {method} {recipient}"
                yield Notification(
                    id=hashlib.sha256(words.encode()).hexdigest()[:32],
                    event=event.name,
                    method=method,
                    params=own,
                    status=NotificationStatus.DUE if can_send else NotificationStatus.UNDELIVERABLE,
                    created_at=at,
                    attempt_after=at if can_send else None,
                    last_error=None if can_send else f"this server is not configured for {method}",
                )


def merged_params(
    catalogue: Catalogue, name: object, wanted: NotificationRequest
) -> dict[str, dict[str, Any]]:
    """The channels of a task called `name`, the catalogue's first, each with its parameters.

    The task's own parameters win over the catalogue's, key by key; nothing is shared with the catalogue.
    """
    requests = _requests(catalogue, name, wanted)
    merged: dict[str, dict[str, Any]] = {}
    for request in requests:
        for method in request.methods:
            merged.setdefault(method, {})
    for own in (request.params for request in requests):
        for method, params in own.items():
            if method in merged:
                merged[method].update(copy.deepcopy(params))
    return merged


def request_of(task: Mapping[str, Any]) -> NotificationRequest:
    """Return the notification request of a stored task.

    Nothing else of the task is read: the older server took tasks that are refused today.
    """
    given = task.get("notification") or {}
    known = {name: given[name] for name in NotificationRequest.model_fields if name in given}
    return NotificationRequest.model_validate(known)


def _requests(catalogue: Catalogue, name: object, wanted: NotificationRequest) -> list[NotificationRequest]:
    entry = catalogue.get(name) if isinstance(name, str) else None
    return [entry.notification, wanted] if entry else [wanted]


def _name(wish: object) -> str:
    return wish if isinstance(wish, EventName) else "pending_over"
