"""Pages of records in MongoDB.

The order is that of the time of creation, then that of `_id`. Documents of the older server whose time of
creation is no date come after the others, or before them if the order is reversed.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bson import Regex
from pymongo.cursor import Cursor

from app.job_state import JobState
from app.models.record import TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.store.mongo.cursors import Position
from app.store.mongo.database import MongoDatabase
from app.store.mongo.documents import document_to_record
from app.store.mongo.filter_plans import IndexScan, Plan, PlanBuilder, match_all
from app.store.mongo.older_server import match_state
from app.store.mongo.read_documents import read_all
from app.store.mongo.summaries import SUMMARY_FIELDS, document_to_summary
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document
from app.store.record_pages import RecordPage, RecordPages

_MAX_CHECKED = 6000  # documents, for one page
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
_WITHOUT_TIME: Document = {"created_at": {"$not": {"$gte": _FIRST_TIME}}}  # an index covers it

_Sort = Sequence[tuple[str, int]]
_Found = list[tuple[Position, Document]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a range, and the order in which an index has its documents."""

    condition: Document
    sort: _Sort


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

    @property
    def sort(self) -> _Sort:
        direction = 1 if self.is_descending else -1
        return [(field, direction * descending) for field, descending in NEWEST_FIRST]

    def split(self) -> Iterator[_Part]:
        """Yield the parts of the range in their order; an index covers the condition of each of them."""
        is_bounded = self.since is not None or self.until is not None
        is_past_times = self.after is not None and self.after.created_at is None
        is_past_others = self.after is not None and self.after.created_at is not None
        if not self.is_descending and not is_bounded and not is_past_others:
            yield _Part(_WITHOUT_TIME, self.sort)
        if not (self.is_descending and is_past_times):
            yield from self._split_times()
        if self.is_descending and not is_bounded:
            yield _Part(_WITHOUT_TIME, self.sort)

    def _split_times(self) -> Iterator[_Part]:
        bounds: Document = {"$gte": self.since or _FIRST_TIME}
        if self.until is not None:
            bounds["$lt"] = self.until
        if self.after is None or self.after.created_at is None:
            yield _Part({"created_at": bounds}, self.sort)
            return
        beyond = "$lt" if self.is_descending else "$gt"
        time = self.after.time
        within: Document = {"created_at": bounds}
        same = match_all([within, {"created_at": time}, self._match_ids_beyond(self.after.id)])
        yield _Part(same, self.sort[1:])  # by the time as well, MongoDB would sort in memory
        yield _Part(match_all([within, {"created_at": {beyond: time}}]), self.sort)

    def _match_ids_beyond(self, id_: object) -> Document:
        """Return a condition for the values of `_id` after this one, even if they are of another type.

        An index covers the first part; only the second one compares values of different types.
        """
        passed, beyond = ("$gte", "$lt") if self.is_descending else ("$lte", "$gt")
        return {"_id": {"$not": {passed: id_}}, "$expr": {beyond: ["$_id", {"$literal": id_}]}}


class MongoRecordPages(MongoDatabase, RecordPages):
    """The lists of the documents."""

    def find_page(
        self,
        wanted: TaskFilter,
        usernames: Collection[str] | None,
        *,
        order: TaskOrder = TaskOrder.NEWEST,
        after: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Find the documents part by part of the range, with the fields of their summaries."""
        position = None if after is None else Position.parse(after)
        place = _Range(order, wanted.since, wanted.until, position)
        with self.operating():
            builder = PlanBuilder(wanted, usernames, self._list_unknown_states(wanted))
            found, end = self._scan(builder, place, limit)
        documents = [document for _, document in found]
        summaries = tuple(read_all(documents, document_to_summary))
        keys = [document["_id"] for document in documents]
        return RecordPage(summaries, None if end is None else end.to_cursor(), keys)

    def find_records(self, page: RecordPage) -> list[TaskRecord]:
        """Find the documents by `_id`."""
        with self.operating():
            found = self.tasks.find({"_id": {"$in": list(page.keys)}})
            documents = {repr(document["_id"]): document for document in found}
        ordered = [documents[repr(key)] for key in page.keys if repr(key) in documents]
        return list(read_all(ordered, document_to_record))

    def _list_unknown_states(self, wanted: TaskFilter) -> list[object]:
        """Return the stored values that are read as UNKNOWN, if the filter asks for this state.

        Objects and regular expressions are left out: MongoDB would not search for them as values.
        """
        if JobState.UNKNOWN not in (wanted.job_states or ()):
            return []
        is_unknown = {"slurm_job_state": match_state(JobState.UNKNOWN)}
        found = self.tasks.distinct("slurm_job_state", is_unknown)
        return [value for value in found if not isinstance(value, dict | Regex)]

    def _scan(self, builder: PlanBuilder, place: _Range, limit: int) -> tuple[_Found, Position | None]:
        """Return the documents of a page, and where the next page begins, if there is one."""
        plans = builder.build()
        found: _Found = []
        end = None
        for part in place.split():
            most = limit + 1 - len(found)
            if part.condition is _WITHOUT_TIME:
                found += self._read_without_time(builder.everything, part, place, most)
            else:
                documents, end = self._scan_part(plans, part, place, most)
                found += documents
            if len(found) > limit:
                return found[:limit], found[limit - 1][0]
            if end is not None:
                break
        return found, end

    def _read_without_time(self, scan: IndexScan, part: _Part, place: _Range, most: int) -> _Found:
        """Return documents without a time; these are few, and no longer become more."""
        skipped = place.after.count if place.after is not None and place.after.created_at is None else 0
        cursor = self._find(scan, match_all([part.condition, scan.check]), part.sort, SUMMARY_FIELDS)
        documents = cursor.skip(skipped).limit(most)
        return [(Position(count=count), document) for count, document in enumerate(documents, skipped + 1)]

    def _scan_part(
        self, plans: Sequence[Plan], part: _Part, place: _Range, most: int
    ) -> tuple[_Found, Position | None]:
        """Return up to `most` documents, and where the search stopped, if it checked as many as it may."""
        for checked in (2 * most, _MAX_CHECKED):
            ends = [self._find_end(plan, part, place, checked // len(plans)) for plan in plans]
            plan, end = _choose_plan(plans, ends, place)
            found = self._read_part(plan, part, end, place, most)
            if end is None or len(found) == most:
                break
        return found, end

    def _read_part(self, plan: Plan, part: _Part, end: Position | None, place: _Range, most: int) -> _Found:
        """Return the first documents of a part of the range, or of what is up to `end`, by one plan."""
        conditions = [part.condition, *([] if end is None else [_up_to(end, place)])]
        streams = [
            self._find(
                scan,
                match_all([scan.key, *conditions, scan.check]),
                part.sort,
                SUMMARY_FIELDS,
            ).limit(most)
            for scan in plan
        ]
        found = [[(Position.of(document), document) for document in stream] for stream in streams]
        merged = heapq.merge(*found, key=lambda item: item[0].sort_key(), reverse=place.is_descending)
        return list(merged)[:most]

    def _find_end(self, plan: Plan, part: _Part, place: _Range, most: int) -> Position | None:
        """Return the position after which a plan would check more than `most` documents, if there are more.

        The index alone shows it. A plan whose index covers the whole filter checks no others.
        """
        nearest = max if place.is_descending else min
        ends = []
        for scan in plan:
            if scan.check and scan.index is not None:
                keys = self._find(scan, match_all([scan.key, part.condition]), part.sort, ("created_at",))
                ends += [Position.of(document) for document in keys.skip(most).limit(1)]
        return nearest(ends, key=Position.sort_key) if ends else None

    def _find(
        self, scan: IndexScan, condition: Document, sort: _Sort, fields: Sequence[str]
    ) -> "Cursor[Document]":
        """Return the documents that meet a condition, by the index of the scan."""
        cursor = self.tasks.find(condition, dict.fromkeys(fields, 1)).sort(sort)
        return cursor if scan.index is None else cursor.hint(list(scan.index))


def _choose_plan(
    plans: Sequence[Plan], ends: Sequence[Position | None], place: _Range
) -> tuple[Plan, Position | None]:
    """Return the first plan that reaches the end of the range, or the one that gets furthest, and where."""
    stops = [end for end in ends if end is not None]
    if len(stops) < len(plans):
        return plans[ends.index(None)], None
    end = (min if place.is_descending else max)(stops, key=Position.sort_key)
    return plans[ends.index(end)], end


def _up_to(end: Position, place: _Range) -> Document:
    """Return the condition for the documents up to a position, and the document there."""
    inclusive, beyond = ("$gte", "$gt") if place.is_descending else ("$lte", "$lt")
    at_end: Document = {"$expr": {inclusive: ["$_id", {"$literal": end.id}]}}
    return {
        "created_at": {inclusive: end.time},
        "$or": [{"created_at": {beyond: end.time}}, at_end],
    }
