"""Cursors of pages: the position of a document in the order of creation, as callers get it."""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import bson
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError

from app.errors import InvalidRequest
from app.store.mongo.types import Document

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_LENGTH = 1024
# The order of the usual types of `_id` in MongoDB.
_RANKS: dict[type, int] = {bool: 4, int: 0, float: 0, str: 1, bytes: 2, ObjectId: 3, datetime: 5}
_OTHER_RANK = 6
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A position: after a document with a time of creation, or after some of those without one.

    Attributes:
        created_at: Milliseconds since 1970; None among the documents without a time.
        id: The `_id` of the document.
        count: How many documents without a time the pages before have.
    """

    created_at: int | None = None
    id: object = None
    count: int = 0

    @property
    def time(self) -> datetime | DatetimeMS:
        """Return the time of creation, which may be out of Python's range."""
        try:
            return _EPOCH + timedelta(milliseconds=self.created_at or 0)
        except OverflowError:
            return DatetimeMS(self.created_at or 0)

    @classmethod
    def of(cls, document: Document) -> Self:
        """Return the position of a document with a time of creation."""
        at = document["created_at"]
        created_at = int(at) if isinstance(at, DatetimeMS) else (at - _EPOCH) // _MILLISECOND
        return cls(created_at, document["_id"])

    def sort_key(self) -> tuple[int, int, object]:
        """Return a key that orders positions with times as MongoDB does."""
        rank = next((rank for kind, rank in _RANKS.items() if isinstance(self.id, kind)), _OTHER_RANK)
        return self.created_at or 0, rank, self.id if rank < _OTHER_RANK else repr(self.id)

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Return the position of a cursor.

        Raises:
            InvalidRequest: The text is not a cursor of this store.
        """
        try:
            encoded = cursor.encode("ascii")[:_MAX_LENGTH]
            parts = bson.decode(base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
            created_at, id_, count = parts["t"], parts["i"], parts["n"]
        except (binascii.Error, BSONError, KeyError, UnicodeError, ValueError):
            created_at, id_, count = "", None, 0
        is_time = created_at is None or isinstance(created_at, int)
        is_count = isinstance(count, int) and 0 <= count <= _MAX_COUNT
        if not (is_time and is_count) or isinstance(id_, list | bson.Regex):
            raise InvalidRequest(["after: must be the `next` of a page, unchanged"])
        return cls(None if created_at is None else int(created_at), id_, int(count))

    def to_cursor(self) -> str:
        """Return the cursor, an opaque text that is safe in URLs."""
        parts = {"t": self.created_at, "i": self.id, "n": self.count}
        return base64.urlsafe_b64encode(bson.encode(parts)).decode().rstrip("=")
