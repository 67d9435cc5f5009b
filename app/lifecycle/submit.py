"""Submit a task: `POST /submit`, and `POST /slurm/job/submit` for operators.

A uuid works once. A second request with the uuid, or with the idempotency key, is answered by the first line
that fits:

- The first request made no job: the uuid is free, and the request is carried out.
- The second request has neither the key of the first nor the uuid as its key: 400 `duplicate_uuid`, with the
  id of the job if there is one and the user is the same.
- The second request has another task: 400 `idempotency_key_reused`.
- The first request made a job: the first answer again.
- It is not known yet whether the first request made a job: 504 `submission_unknown`.
- The reconciler could not find that out, and the record is UNKNOWN: 400 `duplicate_uuid`, without a job.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from app.errors import (
    DuplicateUuid,
    IdempotencyKeyReused,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyJobs,
)
from app.job_state import JobState
from app.lifecycle.ambiguous_submission import find_submitted_job, unknown_submission
from app.lifecycle.job_identity import make_tag
from app.lifecycle.reservations import Reservations, duplicate_uuid
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.answers import Submitted
from app.models.caller import Caller
from app.models.record import RecordKind, TaskRecord
from app.models.task import Task, suggest_misspelt_keys
from app.slurm.client import SlurmClient
from app.slurm.reply import Reply
from app.store.records import RecordStore

logger = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 60.0  # after which a job of the caller may have ended


class TaskSubmitter:
    """The use cases of `POST /submit` and `POST /slurm/job/submit`."""

    def __init__(
        self,
        store: RecordStore,
        slurm: SlurmClient,
        planner: Planner,
        validator: RequestValidator,
        reservations: Reservations,
        *,
        submission_life: timedelta,
        max_open_tasks: int = 0,
    ) -> None:
        """Create a submitter.

        Args:
            store: The records.
            slurm: The client for the requests of callers.
            planner: Plans the notifications of a new record.
            validator: Checks the requests.
            reservations: The reservations of this process.
            submission_life: How long after a reservation its request may still become a job.
            max_open_tasks: How many open tasks one caller may have; 0 for any number.
        """
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._validator = validator
        self._reservations = reservations
        self._submission_life = submission_life
        self._max_open_tasks = max_open_tasks

    def submit(self, caller: Caller, body: Mapping[str, Any], key: str | None = None) -> Submitted:
        """Reserve the uuid, submit one Slurm job as the task's user, and monitor the job from then on.

        Raises:
            InvalidRequest: The task is not valid; there is no job.
            Forbidden: The caller may not submit this task; there is no job.
            TooManyJobs: The caller has as many open tasks as are allowed; there is no job.
            DuplicateUuid: The uuid was used before; there is no new job.
            IdempotencyKeyReused: The key came before with another task; there is no new job.
            SlurmRefused: Slurm refused the job.
            SlurmUnavailable: Slurm does not answer; there is no job.
            ClocksDisagree: This host's clock or the store's is too far from Slurm's; there is no job.
            SlurmAmbiguous: There may be a job; the reservation stays and is settled later.
        """
        task = self._validator.validate_submission(caller, body)
        record = self._new_record(caller, body["task"], task, key)
        if (owner := self._reservations.reserve(record)) is not None:
            return _answer_duplicate(record, owner, key)
        self._require_room(caller, record)
        job_id, warnings = self._submit_once(task, record)
        warnings += suggest_misspelt_keys(task)
        warnings += [item.last_error for item in record.notifications if item.last_error]
        warnings += self._reservations.accept(record, job_id, warnings)
        return _first_answer(record, job_id, warnings)

    def submit_raw(self, query: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """Send a body in slurmrestd's own form, as the user that the query names; record nothing.

        Raises:
            InvalidRequest: The query names no user, or a user that no job runs as.
            SlurmAmbiguous: There may be a job.
        """
        username = self._validator.validate_run_as(query)
        return self._slurm.send_raw("POST", "job/submit", user=username, json=body)

    def _new_record(self, caller: Caller, body: dict[str, Any], task: Task, key: str | None) -> TaskRecord:
        now = self._store.now()
        record = TaskRecord(
            kind=RecordKind.SUBMITTED,
            task=body,
            slurm_username=task.username,
            created_at=now,
            updated_at=now,
            idempotency_key=_stored_key(caller.name, key) if key is not None else None,
            caller=caller.name,
        )
        plan = self._planner.plan_submission(record, now)
        return record.with_notifications(plan.notifications, plan.alarm_at)

    def _submit_once(self, task: Task, record: TaskRecord) -> tuple[int, list[str]]:
        """Submit the job of a reservation; return its id and Slurm's warnings."""
        command = self._planner.catalogue[task.name].build_command(task)
        began = time.monotonic()
        try:
            return self._slurm.submit(
                task, command, make_tag(task.uuid), record.created_at + self._submission_life
            )
        except (SlurmRefused, SlurmUnavailable, SlurmMisbehaved):
            self._reservations.release(record)
            raise
        except SlurmAmbiguous as error:
            logger.warning("submission of %s: %s; looking for its job", task.uuid, error)
            left = self._slurm.max_call_seconds - (time.monotonic() - began)
            return self._find_job(record, error, left), []

    def _find_job(self, record: TaskRecord, error: SlurmAmbiguous, seconds: float) -> int:
        try:
            return find_submitted_job(self._slurm, record, error, self._submission_life, seconds)
        except SlurmRefused:
            self._reservations.release(record)
            raise

    def _require_room(self, caller: Caller, record: TaskRecord) -> None:
        """Release the reservation if the caller has too many open tasks.

        The reservation counts, so that of two requests at once not both find the last place free.

        Raises:
            TooManyJobs: The caller has too many open tasks.
        """
        if not self._max_open_tasks:
            return
        try:
            open_tasks = self._store.count_open_tasks(caller.name)
        except StoreUnavailable:
            self._reservations.release(record)
            raise
        if open_tasks > self._max_open_tasks:
            self._reservations.release(record)
            words = f"{caller.name} has {self._max_open_tasks} jobs waiting or running already"
            raise TooManyJobs(words, _TRY_AGAIN_SECONDS)


def _answer_duplicate(record: TaskRecord, owner: TaskRecord, key: str | None) -> Submitted:
    """Answer a request whose uuid or idempotency key an earlier request has; see the head of this module.

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
        raise duplicate_uuid(record, owner)
    if _canonical(owner.task) != _canonical(record.task):
        raise IdempotencyKeyReused(f"Idempotency-Key: {key} was used before with another task")
    if owner.slurm_job_id is not None:
        return _first_answer(owner, owner.slurm_job_id, owner.warnings)
    if owner.is_reserved:
        raise unknown_submission(owner.uuid)
    raise DuplicateUuid(record.uuid, None)


def _first_answer(record: TaskRecord, job_id: int, warnings: Sequence[str]) -> Submitted:
    return Submitted(
        uuid=record.uuid,
        slurm_job_id=job_id,
        slurm_job_state=JobState.PENDING,
        warnings=list(warnings),
    )


def _stored_key(caller: str, key: str) -> str:
    """Return an idempotency key in its stored form: the caller's name, a blank, the key.

    A blank in the name is escaped, so that the first blank ends the name.
    """
    return f"{caller.replace('%', '%25').replace(' ', '%20')} {key}"


def _canonical(task: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal tasks only: to Python, true and 1 and 1.0 are equal, too."""
    return json.dumps(task, sort_keys=True)
