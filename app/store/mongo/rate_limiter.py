"""The rate limits in MongoDB: one document for each limit whose window has not ended."""

from datetime import datetime

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from app.store.clock import CLOCK_TOLERANCE, log_clock_set_back
from app.store.mongo.database import MongoDatabase
from app.store.mongo.types import Document
from app.store.rate_limiter import RateLimiter, RateLimitUse, RateLimitWindow


class MongoRateLimiter(MongoDatabase, RateLimiter):
    """Windows in a collection of their own. An index deletes those that have ended."""

    def acquire(self, name: str, limit: int, now: datetime, until: datetime) -> RateLimitUse:
        """Count in the window that runs; begin a new one if none runs."""
        running = _match_running(name, now, until)
        with self.operating():
            while True:
                taken = self._count({**running, "count": {"$lt": limit}}, 1)
                if taken is not None:
                    return RateLimitUse(limit - taken.count)
                if self._begin_window(name, 1, now, until):
                    return RateLimitUse(limit - 1)
                full = self.windows.find_one({**running, "count": {"$gte": limit}})
                if full is not None:
                    return RateLimitUse(0, full_until=full["until"])

    def refund(self, name: str) -> None:
        """Count one less in the window that runs, if any."""
        with self.operating():
            self.windows.update_one({"_id": name, "count": {"$gt": 0}}, {"$inc": {"count": -1}})

    def add_uses(self, name: str, uses: int, now: datetime, until: datetime) -> RateLimitWindow:
        """Count in the window that runs; begin a new one if none runs."""
        running = _match_running(name, now, until)
        with self.operating():
            while True:
                if (counted := self._count(running, uses)) is not None:
                    return counted
                if self._begin_window(name, uses, now, until):
                    return RateLimitWindow(uses, until)

    def _count(self, wanted: Document, uses: int) -> RateLimitWindow | None:
        """Count in a window, and return it; None if there is no such window."""
        found = self.windows.find_one_and_update(
            wanted, {"$inc": {"count": uses}}, return_document=ReturnDocument.AFTER
        )
        return RateLimitWindow(found["count"], found["until"]) if found is not None else None

    def _begin_window(self, name: str, uses: int, now: datetime, until: datetime) -> bool:
        """Begin a window in place of one that is over; return False if a window runs."""
        latest = until + CLOCK_TOLERANCE
        over = {"_id": name, "$or": [{"until": {"$lte": now}}, {"until": {"$gt": latest}}]}
        began: Document = {"$set": {"until": until, "count": uses}}
        try:
            last = self.windows.find_one_and_update(over, began, upsert=True)
        except DuplicateKeyError:
            return False
        if last is not None and last["until"] > latest:
            log_clock_set_back(f"the rate limit of {name} until {last['until']}")
        return True


def _match_running(name: str, now: datetime, until: datetime) -> Document:
    """Return a condition for the window of a name, if it has not ended and may have begun already."""
    return {"_id": name, "until": {"$gt": now, "$lte": until + CLOCK_TOLERANCE}}
