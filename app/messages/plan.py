"""Plan the notifications of a job, and its next reading. Pure: no clock, no database, no network."""

import copy
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.messages.compose import compose_content
from app.messages.events import Event, RequestedEvents, find_events, next_event_check
from app.models.catalogue_entry import CatalogueEntry
from app.models.content import Content
from app.models.job import SlurmJob
from app.models.notification_request import EventName, NotificationRequest
from app.models.record import Notification, NotificationStatus, TaskRecord

Catalogue = Mapping[str, CatalogueEntry]


class Channel(Protocol):
    """The part of a channel that the planner needs: only the channel knows the names of its parameters."""

    @property
    def rate_limited(self) -> bool:
        """Return whether people read the messages, and not programs."""

    def own_subject(self, params: Mapping[str, Any], /) -> str:
        """Return the caller's own subject."""

    def own_text(self, params: Mapping[str, Any], /) -> str:
        """Return the caller's own text."""

    def split_recipients(self, params: Mapping[str, Any], /) -> Mapping[str, dict[str, Any]]:
        """Return the parameters of each message by its recipient."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The notifications that are due, and when to read the job again if its state does not change."""

    notifications: tuple[Notification, ...]
    alarm_at: datetime | None


class Planner:
    """Plans notifications, from the catalogue and the channels that are configured."""

    def __init__(
        self, catalogue: Catalogue, methods: Collection[str], find_channel: Callable[[str], Channel]
    ) -> None:
        """Create a planner. `methods` are configured; `find_channel` returns the channel of any method."""
        self.catalogue = catalogue
        self._methods = methods
        self._find_channel = find_channel

    def plan_submission(self, record: TaskRecord, at: datetime) -> Plan:
        """Return the notifications that can never be sent, and when to read the job for the first event.

        The record shows at once which methods are not configured.
        """
        requested = self._requested_events(record)
        name = EventName.END if EventName.END in requested else _event_name(requested[0])
        notifications = [
            item
            for item in self._new_notifications(record, Event(name, name), at)
            if item.status is NotificationStatus.UNDELIVERABLE
        ]
        return Plan(tuple(notifications), next_event_check(requested, record, record.job, at))

    def plan_events(self, record: TaskRecord, job: SlurmJob, at: datetime) -> Plan:
        """Return the notifications that are due with these facts of the job, and were not due before."""
        requested = self._requested_events(record)
        known = {notification.id for notification in record.notifications}
        asked = self._named_events(record)
        due = [
            item.model_copy(update={"content": self._content(event, item, record, job)})
            for event in find_events(requested, record, job, at)
            for item in self._new_notifications(record, event, at)
            if item.id not in known and (asked or self._is_default(event.name, item.method))
        ]
        return Plan(tuple(due), next_event_check(requested, record, job, at))

    def plan_messages(self, record: TaskRecord, at: datetime) -> list[tuple[Notification, RequestedEvents]]:
        """Return a notification for each method and recipient, with the events that it announces."""
        requested = self._requested_events(record)
        named = self._named_events(record)
        first = _event_name(requested[0])
        return [
            (item, [event for event in requested if named or self._is_default(event, item.method)])
            for item in self._new_notifications(record, Event(first, first), at)
        ]

    def _requested_events(self, record: TaskRecord) -> RequestedEvents:
        """Return the events of the catalogue and of the task, or the default if neither names any.

        The default is the end. People are also notified that a job cannot start. A program that did not
        request this event may take every message for an end.
        """
        if asked := self._named_events(record):
            return asked
        methods = merge_params(self.catalogue, record.task.get("name"), read_request(record.task))
        are_people_told = any(map(self._is_read_by_people, methods))
        return [EventName.END, EventName.CANNOT_START] if are_people_told else [EventName.END]

    def _named_events(self, record: TaskRecord) -> RequestedEvents:
        requests = _requests(self.catalogue, record.task.get("name"), read_request(record.task))
        return list(dict.fromkeys(item for request in requests for item in request.events or ()))

    def _is_default(self, event: object, method: str) -> bool:
        """Return whether the method announces the event of this name if no events are named."""
        return event != EventName.CANNOT_START or self._is_read_by_people(method)

    def _is_read_by_people(self, method: str) -> bool:
        return self._find_channel(method).rate_limited

    def _content(self, event: Event, item: Notification, record: TaskRecord, job: SlurmJob) -> Content:
        channel = self._find_channel(item.method)
        return compose_content(
            event, channel.own_subject(item.params), channel.own_text(item.params), record, job
        )

    def _new_notifications(self, record: TaskRecord, event: Event, at: datetime) -> Iterator[Notification]:
        """Yield one notification for each method and recipient, with its first status."""
        wanted = read_request(record.task)
        for method, params in merge_params(self.catalogue, record.task.get("name"), wanted).items():
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


def merge_params(
    catalogue: Catalogue, name: object, wanted: NotificationRequest
) -> dict[str, dict[str, Any]]:
    """Return the parameters of each method of a task called `name`, the catalogue's methods first.

    A parameter of the task has precedence over the same one of the catalogue. Nothing is shared with the
    catalogue.
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


def read_request(task: Mapping[str, Any]) -> NotificationRequest:
    """Return the notification request of a stored task.

    Nothing else of the task is read: the older server accepted tasks that are refused today.
    """
    given = task.get("notification") or {}
    known = {name: given[name] for name in NotificationRequest.model_fields if name in given}
    return NotificationRequest.model_validate(known)


def _requests(catalogue: Catalogue, name: object, wanted: NotificationRequest) -> list[NotificationRequest]:
    entry = catalogue.get(name) if isinstance(name, str) else None
    return [entry.notification, wanted] if entry else [wanted]


def _event_name(item: object) -> str:
    return item if isinstance(item, EventName) else "pending_over"
