"""Pages of records in SQLite.

The order is that of the time of creation, then that of the rowid.
"""

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from app.models.record import TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.store.record_pages import RecordPage, RecordPages
from app.store.sqlite.cursors import Position
from app.store.sqlite.database import SqliteDatabase
from app.store.sqlite.filter_plans import Condition, Plan, build_plans
from app.store.sqlite.rows import row_to_record, to_milliseconds
from app.store.sqlite.summaries import read_summaries

_MAX_CHECKED = 6000  # rows, for one page


@dataclass(frozen=True, slots=True)
class _Range:
    """The times and the order of a page, and the position after which it begins."""

    order: TaskOrder
    since: datetime | None
    until: datetime | None
    after: Position | None

    @property
    def is_descending(self) -> bool:
        return self.order is TaskOrder.NEWEST

    def split(self) -> Iterator[Condition]:
        """Yield conditions for the parts of the range in their order; an index covers each of them."""
        parts, values = ["TRUE"], []
        for bound, operator in ((self.since, ">="), (self.until, "<")):
            if bound is not None:
                parts.append(f"created_at {operator} ?")
                values.append(to_milliseconds(bound))
        beyond = "<" if self.is_descending else ">"
        if self.after is not None:
            same = [*parts, "created_at = ?", f"rowid {beyond} ?"]
            yield Condition(" AND ".join(same), (*values, *self.after))
            parts.append(f"created_at {beyond} ?")
            values.append(self.after[0])
        yield Condition(" AND ".join(parts), tuple(values))


@dataclass(frozen=True, slots=True)
class _Scan:
    """The result of a plan: the records, and where the next page begins, if there is one."""

    found: Sequence[Position]
    end: Position | None
    is_cut_short: bool = False  # the plan has checked as many rows as it may


class SqliteRecordPages(SqliteDatabase, RecordPages):
    """The lists of the table `tasks`."""

    def find_page(
        self,
        wanted: TaskFilter,
        usernames: Collection[str] | None,
        *,
        order: TaskOrder = TaskOrder.NEWEST,
        after: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Find the positions of the records by one index, then read the columns of their summaries."""
        position = None if after is None else Position.parse(after)
        place = _Range(order, wanted.since, wanted.until, position)
        with self.reading() as connection, _snapshot(connection):
            scan = _scan_by_best_plan(connection, build_plans(wanted, usernames), place, limit)
            keys = [rowid for _, rowid in scan.found]
            tasks = read_summaries(connection, keys)
        return RecordPage(tasks, None if scan.end is None else scan.end.to_cursor(), keys)

    def find_records(self, page: RecordPage) -> list[TaskRecord]:
        """Find the records by rowid."""
        with self.reading() as connection, _snapshot(connection):
            rows = connection.execute(
                "SELECT rowid, * FROM tasks WHERE rowid IN (SELECT value FROM json_each(?))",
                (json.dumps(page.keys),),
            )
            records = {row["rowid"]: row_to_record(connection, row) for row in rows.fetchall()}
        return [records[key] for key in page.keys if key in records]


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Have all statements of the block read the same state of the database."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _scan_by_best_plan(
    connection: sqlite3.Connection, plans: Sequence[Plan], place: _Range, limit: int
) -> _Scan:
    """Return the result of the first plan that fills the page, or of the one that gets furthest."""
    scans = []
    for plan in plans:
        scan = _scan(connection, plan, place, limit, _MAX_CHECKED // len(plans))
        if not scan.is_cut_short:
            return scan
        scans.append(scan)
    furthest = min if place.is_descending else max
    return furthest(scans, key=lambda scan: scan.end or Position(0, 0))


def _scan(connection: sqlite3.Connection, plan: Plan, place: _Range, limit: int, most: int) -> _Scan:
    """Check up to `most` rows for a page of up to `limit` records."""
    streams = [_read_stream(connection, plan, stream, place) for stream in plan.streams]
    rows = heapq.merge(*streams, key=_row_to_position, reverse=place.is_descending)
    found: list[Position] = []
    for checked, row in enumerate(rows, start=1):
        if row["is_wanted"]:
            if len(found) == limit:
                return _Scan(found, found[-1])
            found.append(_row_to_position(row))
        if checked == most:
            return _Scan(found, _row_to_position(row), is_cut_short=True)
    return _Scan(found, None)


def _read_stream(
    connection: sqlite3.Connection, plan: Plan, stream: Condition, place: _Range
) -> Iterable[sqlite3.Row]:
    """Return the rows of a stream, each of which is read when it is asked for."""
    direction = "DESC" if place.is_descending else "ASC"
    return chain.from_iterable(
        connection.execute(
            f"SELECT created_at, rowid, {plan.check.sql} AS is_wanted FROM {plan.source}"  # noqa: S608
            f" WHERE {stream.sql} AND {part.sql} ORDER BY created_at {direction}, rowid {direction}",
            (*plan.check.values, *stream.values, *part.values),
        )
        for part in place.split()
    )


def _row_to_position(row: sqlite3.Row) -> Position:
    return Position(row["created_at"], row["rowid"])
