"""Cursors of pages: the position of a record in the order of creation, as callers get it."""

import base64
import binascii
import re
from typing import NamedTuple, Self

from app.errors import InvalidRequest

_FORM = re.compile(r"(-?[0-9]{1,15})\.(-?[0-9]{1,18})")


class Position(NamedTuple):
    """The position of a record; positions are ordered as the records are."""

    created_at: int  # milliseconds since 1970
    rowid: int

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Return the position of a cursor.

        Raises:
            InvalidRequest: The text is not a cursor of this store.
        """
        try:
            text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode(
                "ascii"
            )
        except (binascii.Error, UnicodeError):
            text = ""
        if (match := _FORM.fullmatch(text)) is None:
            raise InvalidRequest(["after: must be the `next` of a page, unchanged"])
        return cls(int(match[1]), int(match[2]))

    def to_cursor(self) -> str:
        """Return the cursor, an opaque text that is safe in URLs."""
        text = f"{self.created_at}.{self.rowid}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
