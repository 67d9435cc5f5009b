"""Pages of records in MongoDB.

The order is that of the time of creation, then that of `_id`. Documents of the older server whose time of
creation is no date come after the others, or before them if the order is reversed.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pymongo.cursor import Cursor

from app.job_state import JobState
from app.models.record import TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.store.mongo.cursors import Position
from app.store.mongo.database import MongoDatabase
from app.store.mongo.documents import document_to_record
from app.store.mongo.errors import translating_errors
from app.store.mongo.filter_plans import Leg, Plan, PlanBuilder, match_all
from app.store.mongo.older_server import match_state
from app.store.mongo.read_documents import read_all
from app.store.mongo.summaries import SUMMARY_FIELDS, document_to_summary
from app.store.mongo.take_over import NEWEST_FIRST
from app.store.mongo.types import Document
from app.store.record_pages import RecordPage, RecordPages

_MAX_CHECKED = 6000  # documents, for one page
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)
_WITHOUT_TIME: Document = {"created_at": {"$not": {"$gte": _FIRST_TIME}}}  # an index covers it

_Found = list[tuple[Position, Document]]


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

    def split(self) -> Iterator[Document]:
        """Yield conditions for the parts of the range in their order; an index covers each of them."""
        is_bounded = self.since is not None or self.until is not None
        is_past_times = self.after is not None and self.after.created_at is None
        is_past_others = self.after is not None and self.after.created_at is not None
        if not self.is_descending and not is_bounded and not is_past_others:
            yield _WITHOUT_TIME
        if not (self.is_descending and is_past_times):
            yield from self._split_times()
        if self.is_descending and not is_bounded:
            yield _WITHOUT_TIME

    def _split_times(self) -> Iterator[Document]:
        bounds: Document = {"$gte": self.since or _FIRST_TIME}
        if self.until is not None:
            bounds["$lt"] = self.until
        if self.after is None or self.after.created_at is None:
            yield {"created_at": bounds}
            return
        beyond = "$lt" if self.is_descending else "$gt"
        time = self.after.time
        yield {"$and": [{"created_at": bounds}, {"created_at": time}], "_id": {beyond: self.after.id}}
        yield {"$and": [{"created_at": bounds}, {"created_at": {beyond: time}}]}


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
        with translating_errors():
            builder = PlanBuilder(wanted, usernames, self._list_unknown_states(wanted))
            found, end = self._scan(builder, place, limit)
        documents = [document for _, document in found]
        summaries = tuple(read_all(documents, document_to_summary))
        keys = [document["_id"] for document in documents]
        return RecordPage(summaries, None if end is None else end.to_cursor(), keys)

    def find_records(self, page: RecordPage) -> list[TaskRecord]:
        """Find the documents by `_id`."""
        with translating_errors():
            found = self.tasks.find({"_id": {"$in": list(page.keys)}})
            documents = {repr(document["_id"]): document for document in found}
        ordered = [documents[repr(key)] for key in page.keys if repr(key) in documents]
        return list(read_all(ordered, document_to_record))

    def _list_unknown_states(self, wanted: TaskFilter) -> list[object]:
        """Return the stored values that are read as UNKNOWN, if the filter asks for this state."""
        if JobState.UNKNOWN not in (wanted.job_states or ()):
            return []
        is_unknown = {"slurm_job_state": match_state(JobState.UNKNOWN)}
        return list(self.tasks.distinct("slurm_job_state", is_unknown))

    def _scan(self, builder: PlanBuilder, place: _Range, limit: int) -> tuple[_Found, Position | None]:
        """Return the documents of a page, and where the next page begins, if there is one."""
        plans = builder.build()
        found: _Found = []
        end = None
        for part in place.split():
            most = limit + 1 - len(found)
            if part is _WITHOUT_TIME:
                found += self._read_without_time(builder.everything, place, most)
            else:
                documents, end = self._scan_part(plans, part, place, most)
                found += documents
            if len(found) > limit:
                return found[:limit], found[limit - 1][0]
            if end is not None:
                break
        return found, end

    def _read_without_time(self, leg: Leg, place: _Range, most: int) -> _Found:
        """Return documents without a time; these are few, and no longer become more."""
        skipped = place.after.count if place.after is not None and place.after.created_at is None else 0
        cursor = self._find(leg, match_all([_WITHOUT_TIME, leg.check]), place, SUMMARY_FIELDS)
        documents = cursor.skip(skipped).limit(most)
        return [(Position(count=count), document) for count, document in enumerate(documents, skipped + 1)]

    def _scan_part(
        self, plans: Sequence[Plan], part: Document, place: _Range, most: int
    ) -> tuple[_Found, Position | None]:
        """Return up to `most` documents, and where the search stopped, if it checked as many as it may."""
        for checked in (2 * most, _MAX_CHECKED):
            ends = [self._find_end(plan, part, place, checked // len(plans)) for plan in plans]
            plan, end = _choose_plan(plans, ends, place)
            found = self._read_part(
                plan, part if end is None else match_all([part, _up_to(end, place)]), place, most
            )
            if end is None or len(found) == most:
                break
        return found, end

    def _read_part(self, plan: Plan, part: Document, place: _Range, most: int) -> _Found:
        """Return the first documents of a part of the range, by one plan."""
        streams = [
            self._find(leg, match_all([leg.key, part, leg.check]), place, SUMMARY_FIELDS).limit(most)
            for leg in plan
        ]
        found = [[(Position.of(document), document) for document in stream] for stream in streams]
        merged = heapq.merge(*found, key=lambda item: _sort_key(item[0]), reverse=place.is_descending)
        return list(merged)[:most]

    def _find_end(self, plan: Plan, part: Document, place: _Range, most: int) -> Position | None:
        """Return the position after which a plan would check more than `most` documents, if there are more.

        The index alone shows it. A plan whose index covers the whole filter checks no others.
        """
        nearest = max if place.is_descending else min
        ends = []
        for leg in plan:
            if leg.check and leg.index is not None:
                keys = self._find(leg, match_all([leg.key, part]), place, ("created_at",))
                ends += [Position.of(document) for document in keys.skip(most).limit(1)]
        return nearest(ends, key=_sort_key) if ends else None

    def _find(
        self, leg: Leg, condition: Document, place: _Range, fields: Sequence[str]
    ) -> "Cursor[Document]":
        """Return the documents that meet a condition, in the order of the list, by the index of the leg."""
        direction = 1 if place.is_descending else -1
        sort = [(field, direction * descending) for field, descending in NEWEST_FIRST]
        cursor = self.tasks.find(condition, dict.fromkeys(fields, 1)).sort(sort)
        return cursor if leg.index is None else cursor.hint(list(leg.index))


def _choose_plan(
    plans: Sequence[Plan], ends: Sequence[Position | None], place: _Range
) -> tuple[Plan, Position | None]:
    """Return the first plan that reaches the end of the range, or the one that gets furthest, and where."""
    stops = [end for end in ends if end is not None]
    if len(stops) < len(plans):
        return plans[ends.index(None)], None
    end = (min if place.is_descending else max)(stops, key=_sort_key)
    return plans[ends.index(end)], end


def _up_to(end: Position, place: _Range) -> Document:
    """Return the condition for the documents up to a position, and the document there."""
    inclusive, beyond = ("$gte", "$gt") if place.is_descending else ("$lte", "$lt")
    return {
        "created_at": {inclusive: end.time},
        "$or": [{"created_at": {beyond: end.time}}, {"_id": {inclusive: end.id}}],
    }


def _sort_key(position: Position) -> tuple[int, str, object]:
    """Return a key for sorting positions with times as MongoDB does, if their `_id` are of one type."""
    is_sortable = not isinstance(position.id, dict)
    id_ = position.id if is_sortable else repr(position.id)
    return position.created_at or 0, type(position.id).__name__, id_
