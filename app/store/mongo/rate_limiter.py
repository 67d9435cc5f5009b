"""The rate limits in MongoDB: one document for each limit whose window has not ended."""

from datetime import datetime

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from app.store.clock import CLOCK_TOLERANCE, log_clock_set_back
from app.store.mongo.database import MongoDatabase
from app.store.mongo.errors import translating_errors
from app.store.mongo.types import Document
from app.store.rate_limiter import RateLimiter, RateLimitUse


class MongoRateLimiter(MongoDatabase, RateLimiter):
    """Windows in a collection of their own. An index deletes those that have ended."""

    def acquire(self, name: str, limit: int, now: datetime, until: datetime) -> RateLimitUse:
        """Count in the window that runs; begin a new one if none runs."""
        latest = until + CLOCK_TOLERANCE
        running = {"_id": name, "until": {"$gt": now, "$lte": latest}}
        over = {"_id": name, "$or": [{"until": {"$lte": now}}, {"until": {"$gt": latest}}]}
        with translating_errors():
            while True:
                has_room = {**running, "count": {"$lt": limit}}
                taken = self.windows.find_one_and_update(
                    has_room, {"$inc": {"count": 1}}, return_document=ReturnDocument.AFTER
                )
                if taken is not None:
                    return RateLimitUse(limit - taken["count"])
                try:
                    began: Document = {"$set": {"until": until, "count": 1}}
                    last = self.windows.find_one_and_update(over, began, upsert=True)
                    if last is not None and last["until"] > latest:
                        log_clock_set_back(f"the rate limit of {name} until {last['until']}")
                    return RateLimitUse(limit - 1)
                except DuplicateKeyError:  # a window still runs
                    full = self.windows.find_one({**running, "count": {"$gte": limit}})
                    if full is not None:
                        return RateLimitUse(0, full_until=full["until"])

    def refund(self, name: str) -> None:
        """Count one less in the window that runs, if any."""
        with translating_errors():
            self.windows.update_one({"_id": name, "count": {"$gt": 0}}, {"$inc": {"count": -1}})
