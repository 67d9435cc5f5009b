"""The notification queue in SQLite: a table of notifications."""

from datetime import datetime

from app.models.record import NotificationStatus
from app.store.clock import CLOCK_TOLERANCE, NEVER, log_clock_set_back
from app.store.notification_queue import Claim, NotificationQueue, Outcome, StoredNotification
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import row_to_notification, to_milliseconds, to_milliseconds_or_none

_FINAL_STATUSES = (NotificationStatus.SENT, NotificationStatus.DEAD)
_CLAIM = (
    "UPDATE notifications SET status = ?, claim = ?, attempt_after = ?, attempts = attempts + 1"
    " WHERE id = (SELECT id FROM notifications WHERE method = ? AND {} ORDER BY attempt_after LIMIT 1)"
    " RETURNING *"
)
_DUE = "attempt_after <= ?"
_IMPOSSIBLE = "attempt_after > ? AND (status = ? OR attempt_after > ?)"  # the clock was set back since


class SqliteNotificationQueue(SqliteDatabase, NotificationQueue):
    """The rows of the table `notifications`."""

    def claim(
        self, method: str, claim_id: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        """Claim the notification that is due for longest, else one that waits longer than possible."""
        claimed = (NotificationStatus.CLAIMED, claim_id, to_milliseconds(until), method)
        longest = to_milliseconds(until + CLOCK_TOLERANCE)
        impossible = (longest, NotificationStatus.CLAIMED, to_milliseconds(latest + CLOCK_TOLERANCE))
        with self.writing() as connection:
            row = connection.execute(_CLAIM.format(_DUE), (*claimed, to_milliseconds(now))).fetchone()
            if row is None:
                row = connection.execute(_CLAIM.format(_IMPOSSIBLE), (*claimed, *impossible)).fetchone()
                if row is not None:
                    log_clock_set_back(f"the wait of message {row['id']}")
            return Claim(row["uuid"], row_to_notification(row)) if row else None

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        """Store the outcome, also for the others in the digest, in one transaction."""
        head, is_sent = claim.notification, outcome.status is NotificationStatus.SENT
        sent_at = to_milliseconds(outcome.at) if is_sent else None
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE notifications SET status = ?, attempt_after = ?, last_error = ?, sent_at = ?,"
                " recipient = coalesce(?, recipient), attempts = attempts - ?, claim = NULL"
                " WHERE id = ? AND (claim = ? OR (? AND status != ?))",
                (
                    outcome.status,
                    to_milliseconds_or_none(outcome.attempt_after),
                    outcome.error,
                    sent_at,
                    outcome.recipient,
                    not outcome.was_attempt,
                    head.id,
                    head.claim,
                    is_sent,
                    NotificationStatus.SENT,
                ),
            )
            if changed.rowcount == 1 and outcome.status in _FINAL_STATUSES:
                connection.execute(
                    "UPDATE notifications SET status = ?, last_error = ?, sent_at = ? WHERE status = ?"
                    " AND digest = (SELECT digest FROM notifications WHERE id = ?) AND id != ?",
                    (outcome.status, outcome.error, sent_at, NotificationStatus.GATHERED, head.id, head.id),
                )
            return changed.rowcount == 1

    def form_digest(
        self, claim: Claim, now: datetime, digest_id: str
    ) -> tuple[str, list[StoredNotification]]:
        """Give the head and the others the id of the digest in one transaction."""
        head = claim.notification
        with self.writing() as connection:
            first = connection.execute(
                "UPDATE notifications SET digest = ? WHERE id = ? AND claim = ? AND digest IS NULL",
                (digest_id, head.id, head.claim),
            )
            if first.rowcount == 1:
                connection.execute(
                    "UPDATE notifications SET digest = ?, attempt_after = NULL"
                    " WHERE recipient = ? AND method = ? AND status = ? AND attempt_after <= ?"
                    " AND digest IS NULL",
                    (
                        digest_id,
                        head.recipient,
                        head.method,
                        NotificationStatus.GATHERED,
                        to_milliseconds(now),
                    ),
                )
            row = connection.execute("SELECT digest FROM notifications WHERE id = ?", (head.id,)).fetchone()
            rows = connection.execute(
                "SELECT * FROM notifications WHERE digest = ? AND id != ? ORDER BY rowid", (row[0], head.id)
            )
            return row[0], [
                StoredNotification(row["uuid"], row_to_notification(row)) for row in rows.fetchall()
            ]

    def find_notification(self, id_: str) -> StoredNotification | None:
        """Find the notification by id."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM notifications WHERE id = ?", (id_,)).fetchone()
            return StoredNotification(row["uuid"], row_to_notification(row)) if row else None

    def list_notifications(
        self, status: NotificationStatus, method: str | None, limit: int
    ) -> list[StoredNotification]:
        """Read the notifications in the order in which they were stored."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM notifications WHERE status = ? AND ? IN (method, '') ORDER BY rowid LIMIT ?",
                (status, method or "", limit),
            )
            return [StoredNotification(row["uuid"], row_to_notification(row)) for row in rows.fetchall()]

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
        """Make the notifications due in one statement."""
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE notifications SET status = :retrying, attempts = 0, attempt_after = :at,"
                " revived_at = :at, recipient = iif(status = :dead, NULL, recipient),"
                " digest = iif(status = :dead, NULL, digest)"
                " WHERE status IN (:dead, :retrying) AND :id IN (id, '') AND :method IN (method, '')",
                {
                    "at": to_milliseconds(at),
                    "dead": NotificationStatus.DEAD,
                    "retrying": NotificationStatus.RETRYING,
                    "id": id_ or "",
                    "method": method or "",
                },
            )
            return changed.rowcount
