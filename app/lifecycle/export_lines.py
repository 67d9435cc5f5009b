"""The form of an export: one JSON object a line.

The first line is an `ExportHeader`, and the last one an `ExportEnd`, with the number of records and keys and
the SHA-256 of all lines before it. In between come the API keys, `{"key": …}`, and the records,
`{"record": …}`. A record of the older server also has its document of MongoDB, `"bson"`, in base64.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.models.api_key import ApiKey
from app.models.job import Utc
from app.models.record import TaskRecord
from app.store.transfer import Entry, record_to_json

FORM = 1


class ExportHeader(BaseModel):
    """The first line of an export."""

    slurm_proxy_export: int  # the version of the form
    schema_version: int
    release: str
    source: str
    is_snapshot: bool
    created_at: Utc
    records: int  # about how many: the last line has their number
    has_keys: bool


class ExportEnd(BaseModel):
    """The last line of an export, without which the file is not complete."""

    model_config = ConfigDict(extra="forbid")

    end: Literal[True] = True
    records: int
    keys: int
    sha256: str


class ExportWriter:
    """Writer of the lines of one export."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Begin with the first line of `stream`."""
        self._stream = stream
        self._digest = hashlib.sha256()
        self.records = 0
        self.keys = 0

    def write_header(self, header: ExportHeader) -> None:
        """Write the first line."""
        self._write(header.model_dump(mode="json"))

    def write_key(self, key: ApiKey) -> None:
        """Write an API key, with its hash."""
        self._write({"key": key.model_dump(mode="json")})
        self.keys += 1

    def write_entry(self, entry: Entry) -> None:
        """Write a record."""
        line: dict[str, Any] = {"record": record_to_json(entry.record) if entry.record else None}
        if entry.bson is not None:
            line["bson"] = base64.b64encode(entry.bson).decode()
        self._write(line)
        self.records += 1

    def write_end(self) -> None:
        """Write the last line."""
        end = ExportEnd(records=self.records, keys=self.keys, sha256=self._digest.hexdigest())
        self._write(end.model_dump())

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"  # in ASCII: no other line breaks
        self._digest.update(line)
        self._stream.write(line)


def parse_line(line: bytes) -> ApiKey | Entry:
    """Return the key or the record in a line.

    Raises:
        ValueError: The line cannot be used; the message says why.
    """
    value = parse_object(line)
    try:
        if value.keys() == {"key"}:
            return ApiKey.model_validate(value["key"])
        if "record" not in value or not value.keys() <= {"record", "bson"}:
            raise ValueError("neither a key nor a record")
        return _parse_entry(value)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        ValueError: The line is no JSON object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _parse_entry(value: Mapping[str, Any]) -> Entry:
    fields, encoded = value["record"], value.get("bson")
    try:
        document = base64.b64decode(encoded, validate=True) if encoded is not None else None
    except (TypeError, ValueError, binascii.Error):
        raise ValueError("bson: not base64") from None
    if fields is None and document is not None:
        return Entry(None, document)
    record = TaskRecord.model_validate(fields)
    if unknown := sorted(fields.keys() - TaskRecord.model_fields.keys()):
        raise ValueError(f"record.{unknown[0]}: this release does not know the field")
    if not (record.key or record.uuid):
        raise ValueError("record.task.uuid: missing")
    return Entry(record, document)
