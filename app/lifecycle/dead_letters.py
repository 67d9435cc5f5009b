"""List notifications by status, and retry dead letters and messages that wait for their next attempt."""

from app.errors import InvalidRequest, NotDead, UnknownNotification
from app.lifecycle.responses import describe_stored_notification
from app.models.answers import KeptNotification, Notifications, Retried
from app.models.record import Notification, NotificationStatus
from app.store.notification_queue import NotificationQueue

_MAX_LIMIT = 1000
# Why a notification in that status cannot be retried.
_WHY_NOT_RETRIED = {
    NotificationStatus.DUE: "waits for its first attempt, which is due already",
    NotificationStatus.CLAIMED: "is being sent right now",
    NotificationStatus.RETRYING: "was told to try again a moment ago",
    NotificationStatus.SENT: "has been sent",
    NotificationStatus.UNDELIVERABLE: "can never be sent: this server was not configured for its method",
}


class DeadLetters:
    """The use cases of the routes `/notifications`."""

    def __init__(self, store: NotificationQueue, methods: tuple[str, ...]) -> None:
        """Create the use cases; `methods` are all channels, configured or not."""
        self._store = store
        self._methods = methods

    def find(self, status: str, limit: str, method: str | None = None) -> Notifications:
        """Return the oldest notifications in a status. All parameters are text, from the query.

        Raises:
            InvalidRequest: A parameter is wrong; the error names it.
        """
        faults = (
            [] if status in list(NotificationStatus) else [_choice_fault("status", list(NotificationStatus))]
        )
        faults += self._method_faults(method)
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 6 and 0 < int(limit) <= _MAX_LIMIT):
            faults.append(f"limit: must be a whole number from 1 to {_MAX_LIMIT}")
        if faults:
            raise InvalidRequest(faults)
        found = self._store.list_notifications(NotificationStatus(status), method, int(limit) + 1)
        shown = [describe_stored_notification(item) for item in found[: int(limit)]]
        return Notifications(notifications=shown, more=len(found) > len(shown))

    def retry(self, id_: str) -> KeptNotification:
        """Retry one message at once that is dead or waits for its next attempt.

        Raises:
            UnknownNotification: There is no notification with that id.
            NotDead: The message is neither dead nor waiting for its next attempt.
        """
        retried = self._store.retry_dead(self._store.now(), id_=id_)
        found = self._store.find_notification(id_)
        if found is None:
            raise UnknownNotification(f"there is no notification {id_}")
        if not retried:
            raise NotDead(f"the notification {id_} {_why_not_retried(found.notification)}")
        return describe_stored_notification(found)

    def retry_all(self, method: str | None = None) -> Retried:
        """Retry all messages at once that are dead or wait for their next attempt.

        Raises:
            InvalidRequest: There is no such method.
        """
        if faults := self._method_faults(method):
            raise InvalidRequest(faults)
        return Retried(retried=self._store.retry_dead(self._store.now(), method=method))

    def _method_faults(self, method: str | None) -> list[str]:
        return [] if method is None or method in self._methods else [_choice_fault("method", self._methods)]


def _choice_fault(name: str, words: list[NotificationStatus] | tuple[str, ...]) -> str:
    return f"{name}: must be one of {', '.join(words)}"


def _why_not_retried(item: Notification) -> str:
    if item.status is NotificationStatus.GATHERED:
        return (
            f"is part of the digest {item.digest}: retry its notification that is not gathered"
            if item.digest
            else f"waits until {item.attempt_after} for a digest: its receiver has reached the rate limit"
        )
    return _WHY_NOT_RETRIED.get(item.status, f"is {item.status}")
