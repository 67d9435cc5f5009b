"""The audit trail: every request that changes something, and every one that was refused.

One JSON object a line, in a file that is only ever appended to, or in the log.
"""

import json
import logging
import os
from functools import partial
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import SettingsError
from app.models.job import Utc
from app.unwritable_file import explain_unwritable

logger = logging.getLogger("app.audit")

_DELETE = 0x7F  # the last control code that json.dumps leaves as it is


class AuditEntry(BaseModel):
    """One line of the audit trail: the caller, the action, the user and task, and the result."""

    model_config = ConfigDict(frozen=True)

    at: Utc
    request_id: str
    caller: str
    address: str
    action: str  # method and route, with ?dry_run=true for a dry run; or the command
    username: str | None = None
    task_uuid: str | None = None
    resubmitted_from: str | None = None  # the uuid of the task that was resubmitted as this one
    slurm_job_id: int | None = None
    status: int | None = None  # of the answer; None for a command
    code: str | None = None  # the machine word of an error
    outcome: str | None = None  # the outcome for this task, if a request is about several
    key: str | None = None  # the API key that a command is about, in the form that `caller` has
    grant: str | None = None  # what that key may do


class _PrivateFile(WatchedFileHandler):
    """A log file that only its owner can read."""

    def _open(self) -> Any:
        opener = partial(os.open, mode=0o600)
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)


def open_audit_trail(path: Path | None) -> None:
    """Write the audit trail to the file at `path`, which only its owner can read; without a path, to the log.

    If the file is moved away, as logrotate does, a new one is created.

    Raises:
        SettingsError: The file cannot be written.
    """
    logger.setLevel(logging.INFO)  # whatever else is logged
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = path is None
    if path is None:
        return
    try:
        handler = _PrivateFile(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"AUDIT_LOG_PATH: {explain_unwritable(path)}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)


def write_audit_entry(entry: AuditEntry) -> None:
    """Write an entry as one line of JSON, with all characters escaped that are not printable."""
    fields = entry.model_dump(mode="json", exclude_none=True)
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = "".join(map(_escape_unprintable, text))
    logger.info("%s", text)


def _escape_unprintable(character: str) -> str:
    """Return a character of a JSON string, escaped if it is a line separator or a control code."""
    if character.isprintable():
        return character
    return json.dumps(character)[1:-1] if ord(character) > _DELETE else f"\\u{ord(character):04x}"
