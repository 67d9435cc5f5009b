"""Read the submissions in an audit trail."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import ValidationError

from app.access.audit import AuditEntry
from app.models.audited_submission import AuditedSubmission

_OK = 200


def read_audited_submissions(lines: Iterable[str], since: datetime) -> Iterator[AuditedSubmission]:
    """Yield the submissions since `since` that became jobs; skip other lines and incomplete ones."""
    for line in lines:
        try:
            entry = AuditEntry.model_validate_json(line)
        except ValidationError:
            continue
        is_submission = entry.action == "POST /submit" or entry.action.endswith("/resubmit")
        if not is_submission or entry.status != _OK or entry.at.tzinfo is None or entry.at < since:
            continue
        if entry.task_uuid and entry.username and entry.slurm_job_id:
            yield AuditedSubmission(
                entry.at,
                entry.task_uuid,
                entry.username,
                entry.slurm_job_id,
                entry.caller,
                entry.resubmitted_from,
            )
