"""Answer a submission whose uuid or idempotency key was used before.

A uuid works once. A second request with the uuid, or with the idempotency key, is answered by the first line
that fits:

- The first request made no job: the uuid is free, and the request is carried out.
- The second request has neither the key of the first nor the uuid as its key: 400 `duplicate_uuid`, with the
  id of the job if there is one and the user is the same.
- The second request has another task, or resubmits another one: 400 `idempotency_key_reused`.
- The first request made a job: the first answer again.
- It is not known yet whether the first request made a job: 504 `submission_unknown`.
- The reconciler could not find that out, and the record is UNKNOWN: 400 `duplicate_uuid`, without a job.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import DuplicateUuid, IdempotencyKeyReused
from app.job_state import JobState
from app.lifecycle.ambiguous_submission import make_unknown_error
from app.lifecycle.reservations import make_duplicate_error
from app.models.answers import Submitted
from app.models.record import TaskRecord


def answer_repeated_submission(record: TaskRecord, owner: TaskRecord, key: str | None) -> Submitted:
    """Answer a request whose uuid or idempotency key an earlier request has, by the rules above.

    Args:
        record: The record that could not be reserved.
        owner: The record of the earlier request.
        key: The idempotency key as it was sent.

    Raises:
        DuplicateUuid: The request does not have the key of the earlier one.
        IdempotencyKeyReused: The key was used before with another task.
        SlurmAmbiguous: It is not known yet whether the earlier request made a job.
    """
    if key is None or (key != owner.uuid and record.idempotency_key != owner.idempotency_key):
        raise make_duplicate_error(record, owner)
    is_same_task = _canonical(owner.task) == _canonical(record.task)
    if not is_same_task or owner.resubmitted_from != record.resubmitted_from:
        raise IdempotencyKeyReused(f"Idempotency-Key: {key} was used before with another task")
    if owner.slurm_job_id is not None:
        return make_first_answer(owner, owner.slurm_job_id, owner.warnings)
    if owner.is_reserved:
        raise make_unknown_error(owner.uuid)
    raise DuplicateUuid(record.uuid, None)


def make_first_answer(record: TaskRecord, job_id: int, warnings: Sequence[str]) -> Submitted:
    """Return the answer to a request that made a job."""
    return Submitted(
        uuid=record.uuid,
        slurm_job_id=job_id,
        slurm_job_state=JobState.PENDING,
        warnings=list(warnings),
    )


def make_stored_key(caller: str, key: str) -> str:
    """Return an idempotency key in its stored form: the caller's name, a blank, the key.

    A blank in the name is escaped, so that the first blank ends the name.
    """
    return f"{caller.replace('%', '%25').replace(' ', '%20')} {key}"


def _canonical(task: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal tasks only: to Python, true and 1 and 1.0 are equal, too."""
    return json.dumps(task, sort_keys=True)
