"""Choose how far back `records adopt` searches for jobs."""

from datetime import datetime, timedelta

from app.models.task_filter import TaskFilter
from app.store.record_pages import RecordPages

_USUAL = timedelta(days=7)
_MARGIN = timedelta(hours=1)  # for submissions that were under way, and for clocks that differ


def find_newest_record_time(store: RecordPages) -> datetime | None:
    """Return when the newest record was created, which is about the time of a restored backup."""
    page = store.find_page(TaskFilter(), None, limit=1)
    return page.tasks[0].created_at if page.tasks else None


def choose_search_begin(newest: datetime | None, now: datetime) -> datetime:
    """Return the beginning of a search: seven days ago, or before the newest record if that is older."""
    return min(now - _USUAL, (newest or now) - _MARGIN)
