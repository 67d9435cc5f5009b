"""Documents as entries of an export, and back."""

from collections.abc import Mapping
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from app.store.mongo.documents import document_to_record, record_to_document
from app.store.mongo.types import Document
from app.store.transfer import (
    PRESENT,
    Entry,
    ImportResult,
    explain_record_conflict,
    is_same_record,
    release_claims,
)

_ADDED_FIELDS = ("uuid", "is_open", "is_reserved", "kind", "taken_over_at", "fence")  # by a take-over
# No integers are converted, so that a document of the older server is encoded as it was.
VERBATIM: CodecOptions[Document] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_UNREADABLE = (ArithmeticError, LookupError, TypeError, ValueError)


def document_to_entry(document: Document, *, is_older: bool = False) -> Entry:
    """Return the entry of a document; include the document if the record lacks some of its content."""
    try:
        record = release_claims(document_to_record(document))
    except _UNREADABLE:
        return Entry(None, bson.encode(document))
    if not is_older and document.get("uuid") is not None:
        return Entry(record)
    key = document.get("uuid") or f"{record.uuid}#{document['_id']}"
    return Entry(record.model_copy(update={"key": key}), bson.encode(document))


def entry_to_document(entry: Entry) -> Document:
    """Return the document to insert for an entry."""
    if entry.bson is not None or entry.record is None:
        return decode_entry(entry)
    document = {**record_to_document(entry.record), "uuid": find_key_of_entry(entry)}
    if entry.record.taken_over_at is not None:
        document["taken_over_at"] = entry.record.taken_over_at
    return document


def decode_entry(entry: Entry) -> Document:
    """Return the document of the older server in an entry."""
    document: Document = bson.decode(entry.bson or b"", VERBATIM)
    return document


def find_key_of_entry(entry: Entry) -> str:
    """Return the value of the field `uuid`."""
    return (entry.record.key or entry.record.uuid) if entry.record else "of an unreadable record"


def compare_with_document(entry: Entry, document: Document) -> ImportResult:
    """Return the result for an entry of which the store has the document."""
    try:
        stored = document_to_record(document)
    except _UNREADABLE:
        stored = None
    is_same = stored is not None and entry.record is not None and is_same_record(stored, entry.record)
    return PRESENT if is_same else explain_record_conflict(find_key_of_entry(entry))


def encode_without_added_fields(document: Mapping[str, Any]) -> bytes:
    """Return an encoded document without the fields that a take-over adds."""
    return bson.encode({name: value for name, value in document.items() if name not in _ADDED_FIELDS})
