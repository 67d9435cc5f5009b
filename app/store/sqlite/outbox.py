"""The notifications: claimed, gathered, settled."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime

from app.models.record import Notification, NotificationStatus
from app.store import CLOCK_TOLERANCE, NEVER, Claim, Outcome, log_impossible
from app.store.sqlite.database import (
    SqliteDatabase,
    milliseconds,
    milliseconds_if_any,
    moment,
    moment_if_any,
)

# The columns that change while a notification lives; the rest of it stands in `message`.
_LIFE = (
    "status",
    "attempts",
    "attempt_after",
    "claim",
    "last_error",
    "sent_at",
    "revived_at",
    "recipient",
    "digest",
)
_OVER = (NotificationStatus.SENT, NotificationStatus.DEAD)
_MOMENTS = ("attempt_after", "sent_at", "revived_at")


_CLAIM = (
    "UPDATE notifications SET status = ?, claim = ?, attempt_after = ?, attempts = attempts + 1"
    " WHERE id = (SELECT id FROM notifications WHERE method = ? AND {} ORDER BY attempt_after LIMIT 1)"
    " RETURNING *"
)
_DUE = "attempt_after <= ?"
_IMPOSSIBLE = "attempt_after > ? AND (status = ? OR attempt_after > ?)"  # the clock was set back since


class SqliteOutbox(SqliteDatabase):
    def claim(
        self, method: str, token: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        claimed = (NotificationStatus.CLAIMED, token, milliseconds(until), method)
        longest = milliseconds(until + CLOCK_TOLERANCE)
        impossible = (longest, NotificationStatus.CLAIMED, milliseconds(latest + CLOCK_TOLERANCE))
        with self.writing() as connection:
            row = connection.execute(_CLAIM.format(_DUE), (*claimed, milliseconds(now))).fetchone()
            if row is None:
                row = connection.execute(_CLAIM.format(_IMPOSSIBLE), (*claimed, *impossible)).fetchone()
                if row is not None:
                    log_impossible(f"the wait of message {row['id']}")
            return Claim(row["uuid"], read_notification(row)) if row else None

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        head, is_sent = claim.notification, outcome.status is NotificationStatus.SENT
        sent_at = milliseconds(outcome.at) if is_sent else None
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE notifications SET status = ?, attempt_after = ?, last_error = ?, sent_at = ?,"
                " recipient = coalesce(?, recipient), attempts = attempts - ?, claim = NULL"
                " WHERE id = ? AND (claim = ? OR (? AND status != ?))",
                (
                    outcome.status,
                    milliseconds_if_any(outcome.attempt_after),
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
            if changed.rowcount == 1 and outcome.status in _OVER:
                connection.execute(
                    "UPDATE notifications SET status = ?, last_error = ?, sent_at = ? WHERE status = ?"
                    " AND digest = (SELECT digest FROM notifications WHERE id = ?) AND id != ?",
                    (outcome.status, outcome.error, sent_at, NotificationStatus.GATHERED, head.id, head.id),
                )
            return changed.rowcount == 1

    def gather(self, claim: Claim, now: datetime, digest: str) -> tuple[str, list[Claim]]:
        head = claim.notification
        with self.writing() as connection:
            first = connection.execute(
                "UPDATE notifications SET digest = ? WHERE id = ? AND claim = ? AND digest IS NULL",
                (digest, head.id, head.claim),
            )
            if first.rowcount == 1:
                connection.execute(
                    "UPDATE notifications SET digest = ?, attempt_after = NULL"
                    " WHERE recipient = ? AND method = ? AND status = ? AND attempt_after <= ?"
                    " AND digest IS NULL",
                    (digest, head.recipient, head.method, NotificationStatus.GATHERED, milliseconds(now)),
                )
            row = connection.execute("SELECT digest FROM notifications WHERE id = ?", (head.id,)).fetchone()
            rows = connection.execute(
                "SELECT * FROM notifications WHERE digest = ? AND id != ? ORDER BY rowid", (row[0], head.id)
            )
            return row[0], [Claim(row["uuid"], read_notification(row)) for row in rows.fetchall()]

    def take_slot(self, recipient: str, most: int, now: datetime, until: datetime) -> datetime | None:
        with self.writing() as connection:
            connection.execute("DELETE FROM windows WHERE until <= ?", (milliseconds(now),))
            impossible = connection.execute(
                "DELETE FROM windows WHERE recipient = ? AND until > ? RETURNING until",
                (recipient, milliseconds(until + CLOCK_TOLERANCE)),
            ).fetchone()
            if impossible is not None:
                log_impossible(f"the rate limit of {recipient} until {moment(impossible[0])}")
            taken = connection.execute(
                "INSERT INTO windows (recipient, until, count) VALUES (?, ?, 1)"
                " ON CONFLICT (recipient) DO UPDATE SET count = count + 1 WHERE count < ?",
                (recipient, milliseconds(until), most),
            )
            if taken.rowcount == 1:
                return None
            row = connection.execute("SELECT until FROM windows WHERE recipient = ?", (recipient,)).fetchone()
            return moment(row[0])

    def give_slot_back(self, recipient: str) -> None:
        with self.writing() as connection:
            connection.execute(
                "UPDATE windows SET count = count - 1 WHERE recipient = ? AND count > 0", (recipient,)
            )

    def notification(self, id_: str) -> Claim | None:
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM notifications WHERE id = ?", (id_,)).fetchone()
            return Claim(row["uuid"], read_notification(row)) if row else None

    def notifications(self, status: NotificationStatus, method: str | None, most: int) -> list[Claim]:
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM notifications WHERE status = ? AND ? IN (method, '') ORDER BY rowid LIMIT ?",
                (status, method or "", most),
            )
            return [Claim(row["uuid"], read_notification(row)) for row in rows.fetchall()]

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
        with self.writing() as connection:
            changed = connection.execute(
                "UPDATE notifications SET status = :retrying, attempts = 0, attempt_after = :at,"
                " revived_at = :at, recipient = iif(status = :dead, NULL, recipient),"
                " digest = iif(status = :dead, NULL, digest)"
                " WHERE status IN (:dead, :retrying) AND :id IN (id, '') AND :method IN (method, '')",
                {
                    "at": milliseconds(at),
                    "dead": NotificationStatus.DEAD,
                    "retrying": NotificationStatus.RETRYING,
                    "id": id_ or "",
                    "method": method or "",
                },
            )
            return changed.rowcount


def add_notifications(
    connection: sqlite3.Connection, uuid: str, notifications: Sequence[Notification]
) -> None:
    first = connection.execute("SELECT count(*) FROM notifications WHERE uuid = ?", (uuid,)).fetchone()[0]
    columns = ("id", "uuid", "position", "method", *_LIFE, "message")
    marks = ", ".join("?" * len(columns))
    connection.executemany(
        f"INSERT OR IGNORE INTO notifications ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
        [
            (item.id, uuid, position, item.method, *_life(item), item.model_dump_json(exclude=set(_LIFE)))
            for position, item in enumerate(notifications, start=first)
        ],
    )


def _life(item: Notification) -> Iterator[object]:
    for column in _LIFE:
        value = getattr(item, column)
        yield milliseconds_if_any(value) if column in _MOMENTS else value


def read_notification(row: sqlite3.Row) -> Notification:
    life = {column: row[column] for column in _LIFE}
    for column in _MOMENTS:
        life[column] = moment_if_any(life[column])
    return Notification.model_validate({**json.loads(row["message"]), **life})
