"""Pages of the records that a filter describes, ordered by the time of their creation."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.models.record import TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.models.task_summary import TaskSummary


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One page of a list.

    Attributes:
        tasks: The summaries, in the order of the list.
        next: The cursor of the next page; None after the last page. A page with a cursor may be short, and
            even empty, if few of the records that were checked for it meet the filter.
        keys: The keys of the records in this store, for `find_records`.
    """

    tasks: tuple[TaskSummary, ...]
    next: str | None
    keys: Sequence[object]


class RecordPages(Protocol):
    """The lists of a store. Each method reads a bounded number of records, however many there are.

    A record that is added later than a page never changes the pages after it. Every method raises
    StoreUnavailable if the database does not answer.
    """

    def find_page(
        self,
        wanted: TaskFilter,
        usernames: Collection[str] | None,
        *,
        order: TaskOrder = TaskOrder.NEWEST,
        after: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the records that meet a filter.

        Args:
            wanted: The filter.
            usernames: The users whose records may be returned; None for all users.
            order: The order.
            after: The cursor of a page, after which this page begins, whatever the filter of that page was.
            limit: The most records in the page.

        Raises:
            InvalidRequest: `after` is not a cursor of this store.
        """

    def find_records(self, page: RecordPage) -> list[TaskRecord]:
        """Return the whole records of a page, in its order, without those that are gone."""
