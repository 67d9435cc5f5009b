"""The notifications in a store, as a queue: claimed when due, then settled."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.models.record import Notification, NotificationStatus
from app.store.clock import NEVER, StoreClock


@dataclass(frozen=True, slots=True)
class StoredNotification:
    """A notification, and the uuid of the record that holds it."""

    uuid: str
    notification: Notification


@dataclass(frozen=True, slots=True)
class Claim(StoredNotification):
    """A notification that this process may send until its claim expires."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a claim: what `NotificationQueue.settle` stores."""

    status: NotificationStatus
    at: datetime
    attempt_after: datetime | None = None  # the next attempt, if there is one
    error: str | None = None
    recipient: str | None = None  # whose digest the notification waits for
    was_attempt: bool = True  # False if nothing was sent, as during the backoff of a receiver


class NotificationQueue(StoreClock, Protocol):
    """A queue of notifications, which gives each one that is due to one process at a time.

    Every method raises StoreUnavailable if the database does not answer. Each method is atomic.
    """

    def claim(
        self, method: str, claim_id: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        """Claim one notification that is due; return None if none is due.

        A claim that ends later than `until`, or a retry later than `latest`, shows that the clock was set
        back. Such a notification is due, too. CLOCK_TOLERANCE is added to both times.

        Args:
            method: The method of the notification.
            claim_id: A name for the claim, which no other claim has.
            now: The store's time.
            until: When the claim expires, so that others may claim the notification.
            latest: The latest time that a retry can have.
        """

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        """Store the outcome of a claim; return False if another process has the claim by now.

        SENT is stored even if another process has the claim by now. If the notification is sent or dead, the
        others in its digest get the same status.
        """

    def form_digest(
        self, claim: Claim, now: datetime, digest_id: str
    ) -> tuple[str, list[StoredNotification]]:
        """Form a digest of a claimed notification, its head, and the due ones that wait for the same digest.

        Only the first call forms a digest, with `digest_id` as its id. Later calls return the same digest,
        whichever process has claimed the head.

        Returns:
            The id of the digest, and the other notifications in it.
        """

    def find_notification(self, id_: str) -> StoredNotification | None:
        """Return the notification with that id."""

    def list_notifications(
        self, status: NotificationStatus, method: str | None, limit: int
    ) -> list[StoredNotification]:
        """Return up to `limit` notifications in a status, the oldest first; None stands for any method."""

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
        """Make dead letters, and notifications that wait for a retry, due at once; return their number.

        Their attempts and their retry deadline start anew. A head that waits for a retry keeps its digest.

        Args:
            at: The store's time.
            id_: The only notification to retry; None for all.
            method: The only method to retry; None for all.
        """
