"""Register a job that was submitted elsewhere: `POST /monitor`."""

from collections.abc import Mapping
from typing import Any

from app.errors import DuplicateUuid, NotTheOwner, UnknownJob
from app.lifecycle.reservations import make_duplicate_error
from app.lifecycle.responses import describe_record
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.answers import Record
from app.models.caller import Caller, Scope
from app.models.job import SlurmJob
from app.models.record import RecordKind, TaskRecord
from app.models.task import WatchedTask, suggest_misspelt_keys
from app.slurm.client import SlurmClient
from app.store.records import RecordStore


class JobRegistration:
    """The use case of `POST /monitor`."""

    def __init__(
        self, store: RecordStore, slurm: SlurmClient, planner: Planner, validator: RequestValidator
    ) -> None:
        """Create the use case."""
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._validator = validator

    def register(self, caller: Caller, body: Mapping[str, Any]) -> Record:
        """Store the record of a job that Slurm has already; the poller monitors the job from then on.

        Raises:
            InvalidRequest: The request is not valid.
            Forbidden: The caller may not submit such a task.
            UnknownJob: Slurm knows no such job, or the caller may not read the jobs of its user.
            NotTheOwner: The job belongs to another user than the task names.
            DuplicateUuid: The uuid was used before.
            SlurmUnavailable: Slurm does not answer.
        """
        request = self._validator.validate_registration(caller, body)
        job = self._slurm.find_job(request.slurm_job_id)
        if job is None or not caller.is_allowed(Scope.READ, job.username):
            raise UnknownJob(f"monitor.slurm_job_id: Slurm knows no job {request.slurm_job_id}")
        if job.username != request.task.username:
            raise NotTheOwner(
                f"monitor.task.username: job {job.job_id} does not belong to {request.task.username}"
            )
        record = self._new_record(caller, body["monitor"]["task"], request.task, job)
        try:
            self._store.add_record(record)
        except DuplicateUuid as error:
            owner = self._store.find_by_uuids([record.uuid]).get(record.uuid)
            raise make_duplicate_error(record, owner) from error
        return describe_record(record)

    def _new_record(
        self, caller: Caller, body: dict[str, Any], task: WatchedTask, job: SlurmJob
    ) -> TaskRecord:
        now = self._store.now()
        record = TaskRecord(
            kind=RecordKind.REGISTERED,
            task=body,
            slurm_username=task.username,
            slurm_job_id=job.job_id,
            slurm_job_state=job.job_state,
            created_at=now,
            updated_at=now,
            job=job,
            caller=caller.name,
            never_resubmitted=True,
            warnings=tuple(suggest_misspelt_keys(task)),
        )
        plan = self._planner.plan_submission(record, now)
        record = record.with_notifications(plan.notifications, plan.alarm_at)
        if record.is_open:
            return record
        plan = self._planner.plan_events(record, job, now)
        return record.with_notifications(plan.notifications, plan.alarm_at)
