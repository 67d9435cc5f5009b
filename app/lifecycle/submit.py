"""Submit a task: `POST /submit`, and `POST /slurm/job/submit` for operators.

A uuid works once: see `repeated_submission.py`.
"""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.errors import (
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
)
from app.lifecycle.ambiguous_submission import find_submitted_job
from app.lifecycle.job_identity import make_tag
from app.lifecycle.open_task_limit import require_room
from app.lifecycle.repeated_submission import answer_repeated_submission, make_first_answer, make_stored_key
from app.lifecycle.reservations import Reservations
from app.lifecycle.resolve_dependencies import DependencyResolver, DependencyStore
from app.lifecycle.responses import describe_planned_message
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.answers import DryRun, Submitted
from app.models.caller import Caller
from app.models.record import RecordKind, TaskRecord
from app.models.task import Task, suggest_misspelt_keys
from app.slurm.client import SlurmClient
from app.slurm.reply import Reply

logger = logging.getLogger(__name__)


class TaskSubmitter:
    """The use cases of `POST /submit` and `POST /slurm/job/submit`."""

    def __init__(
        self,
        store: DependencyStore,
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
        self._dependencies = DependencyResolver(store, slurm)

    def submit(
        self,
        caller: Caller,
        body: Mapping[str, Any],
        key: str | None = None,
        resubmitted_from: str | None = None,
    ) -> Submitted:
        """Reserve the uuid, submit one Slurm job as the task's user, and monitor the job from then on.

        Args:
            caller: The caller.
            body: The body of the request.
            key: The idempotency key.
            resubmitted_from: The uuid of the task that is resubmitted.

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
        record = self._new_record(caller, body["task"], task, key, resubmitted_from)
        if (owner := self._reservations.reserve(record)) is not None:
            return answer_repeated_submission(record, owner, key)
        try:
            require_room(self._store, caller, self._max_open_tasks)
            task = self._dependencies.resolve(caller, task)
        except SlurmProxyError:
            self._reservations.release(record)
            raise
        job_id, warnings = self._submit_once(task, record)
        warnings += _list_warnings(task, record)
        warnings += self._reservations.accept(record, job_id, warnings)
        return make_first_answer(record, job_id, warnings)

    def dry_run(
        self,
        caller: Caller,
        body: Mapping[str, Any],
        key: str | None = None,
        resubmitted_from: str | None = None,
    ) -> DryRun | Submitted:
        """Check a submission and return what it would send; reserve, store and submit nothing.

        A request that repeats an earlier one gets the answer that `submit` would return.

        Raises:
            InvalidRequest: The task is not valid.
            Forbidden: The caller may not submit this task.
            TooManyJobs: The caller has as many open tasks as are allowed.
            DuplicateUuid: The uuid was used before.
            IdempotencyKeyReused: The key came before with another task.
            SlurmRefused: The cluster's dialect cannot express an option of the task.
            SlurmUnavailable: Slurm does not answer.
            ClocksDisagree: This host's clock or the store's is too far from Slurm's.
            SlurmAmbiguous: The request repeats one whose outcome is not known yet.
        """
        task = self._validator.validate_submission(caller, body)
        record = self._new_record(caller, body["task"], task, key, resubmitted_from)
        if (owner := self._reservations.find_owner(record)) is not None:
            return answer_repeated_submission(record, owner, key)
        require_room(self._store, caller, self._max_open_tasks, additional=1)
        task = self._dependencies.resolve(caller, task)
        sent = self._slurm.build_submission(task, self._build_command(task), make_tag(task.uuid))
        planned = self._planner.plan_messages(record, record.created_at)
        return DryRun(
            valid=True,
            script=sent["script"],
            slurm=sent,
            notifications=[describe_planned_message(item, events) for item, events in planned],
            warnings=_list_warnings(task, record),
        )

    def submit_raw(self, query: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """Send a body in slurmrestd's own form, as the user that the query names; record nothing.

        Raises:
            InvalidRequest: The query names no user, or a user that no job runs as.
            SlurmAmbiguous: There may be a job.
        """
        username = self._validator.validate_run_as(query)
        return self._slurm.send_raw("POST", "job/submit", user=username, json=body)

    def _new_record(
        self,
        caller: Caller,
        body: dict[str, Any],
        task: Task,
        key: str | None,
        resubmitted_from: str | None,
    ) -> TaskRecord:
        now = self._store.now()
        record = TaskRecord(
            kind=RecordKind.SUBMITTED,
            task=body,
            slurm_username=task.username,
            created_at=now,
            updated_at=now,
            idempotency_key=make_stored_key(caller.name, key) if key is not None else None,
            caller=caller.name,
            resubmitted_from=resubmitted_from,
            never_resubmitted=True,
            defaults=self._planner.catalogue[task.name].select_defaults(body),
        )
        plan = self._planner.plan_submission(record, now)
        return record.with_notifications(plan.notifications, plan.alarm_at)

    def _build_command(self, task: Task) -> str:
        return self._planner.catalogue[task.name].build_command(task)

    def _submit_once(self, task: Task, record: TaskRecord) -> tuple[int, list[str]]:
        """Submit the job of a reservation; return its id and Slurm's warnings."""
        command = self._build_command(task)
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


def _list_warnings(task: Task, record: TaskRecord) -> list[str]:
    """Return the warnings about misspelt keys, and about methods that are not configured."""
    not_configured = [item.last_error for item in record.notifications if item.last_error]
    return [*suggest_misspelt_keys(task), *not_configured]
