"""The audit trail: every request that changes something, and every one that was refused.

One JSON object a line, in a file that is only ever appended to, or in the log.
"""

import logging
import os
from functools import partial
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.models.job import Utc

logger = logging.getLogger("app.audit")


class AuditEntry(BaseModel):
    """Who did what for whom, when, from where, and how it ended."""

    model_config = ConfigDict(frozen=True)

    at: Utc
    request_id: str
    caller: str
    address: str
    action: str  # method and route
    username: str | None = None
    task_uuid: str | None = None
    slurm_job_id: int | None = None
    status: int
    code: str | None = None  # the machine word of an error


class _PrivateFile(WatchedFileHandler):
    def _open(self) -> Any:
        opener = partial(os.open, mode=0o600)
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)


def open_trail(path: Path | None) -> None:
    """Sends the trail to that file, which only its owner can read; OSError where it cannot be written.

    A file that is moved away, as logrotate does, is begun anew.
    """
    logger.setLevel(logging.INFO)  # whatever else is logged
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = path is None
    if path is None:
        return
    handler = _PrivateFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)


def note(entry: AuditEntry) -> None:
    logger.info(entry.model_dump_json(exclude_none=True))
