"""The rate limits in SQLite: one row for each limit whose window has not ended."""

import sqlite3
from datetime import datetime

from app.store.clock import CLOCK_TOLERANCE, log_clock_set_back
from app.store.rate_limiter import RateLimiter, RateLimitUse, RateLimitWindow
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.rows import to_datetime, to_milliseconds


class SqliteRateLimiter(SqliteDatabase, RateLimiter):
    """The rows of the table `windows`. Losing a count in a crash of the host does no harm."""

    def acquire(self, name: str, limit: int, now: datetime, until: datetime) -> RateLimitUse:
        """Count in the window that runs, or begin a new one."""
        with self.writing(durable=False) as connection:
            _delete_ended_windows(connection, name, now, until)
            taken = connection.execute(
                "INSERT INTO windows (recipient, until, count) VALUES (?, ?, 1)"
                " ON CONFLICT (recipient) DO UPDATE SET count = count + 1 WHERE count < ?"
                " RETURNING count",
                (name, to_milliseconds(until), limit),
            ).fetchone()
            if taken is not None:
                return RateLimitUse(limit - taken[0])
            row = connection.execute("SELECT until FROM windows WHERE recipient = ?", (name,)).fetchone()
            return RateLimitUse(0, full_until=to_datetime(row[0]))

    def refund(self, name: str) -> None:
        """Count one less in the window that runs, if any."""
        with self.writing(durable=False) as connection:
            connection.execute(
                "UPDATE windows SET count = count - 1 WHERE recipient = ? AND count > 0", (name,)
            )

    def add_uses(self, name: str, uses: int, now: datetime, until: datetime) -> RateLimitWindow:
        """Count in the window that runs, or begin a new one."""
        with self.writing(durable=False) as connection:
            _delete_ended_windows(connection, name, now, until)
            row = connection.execute(
                "INSERT INTO windows (recipient, until, count) VALUES (?, ?, ?)"
                " ON CONFLICT (recipient) DO UPDATE SET count = count + excluded.count"
                " RETURNING count, until",
                (name, to_milliseconds(until), uses),
            ).fetchone()
            return RateLimitWindow(row["count"], to_datetime(row["until"]))


def _delete_ended_windows(connection: sqlite3.Connection, name: str, now: datetime, until: datetime) -> None:
    """Delete all windows that have ended, and the window of `name` if it ends later than possible."""
    connection.execute("DELETE FROM windows WHERE until <= ?", (to_milliseconds(now),))
    impossible = connection.execute(
        "DELETE FROM windows WHERE recipient = ? AND until > ? RETURNING until",
        (name, to_milliseconds(until + CLOCK_TOLERANCE)),
    ).fetchone()
    if impossible is not None:
        log_clock_set_back(f"the rate limit of {name} until {to_datetime(impossible[0])}")
