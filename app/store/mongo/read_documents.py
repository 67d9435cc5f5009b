"""Read documents one by one, so that one that cannot be read does not hide the others."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from app.outages import RepeatFilter
from app.store.mongo.types import Document

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(600, by_message=True))  # every polling cycle meets the same document

_Read = TypeVar("_Read")


def read_all(documents: Iterable[Document], read: Callable[[Document], _Read]) -> Iterator[_Read]:
    """Yield what `read` returns for each document; log and leave out documents that cannot be read."""
    for document in documents:
        try:
            yield read(document)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            logger.exception("the document %s cannot be read", document["_id"])
