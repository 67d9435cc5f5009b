"""A submission as the audit trail has recorded it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AuditedSubmission:
    """A line of the audit trail about a task that became a job."""

    at: datetime
    uuid: str
    username: str
    job_id: int
    caller: str
    resubmitted_from: str | None = None
