"""Takes tasks in: submits new ones, and takes over jobs that were submitted elsewhere."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.errors import (
    InvalidRequest,
    NotTheOwner,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    UnknownJob,
)
from app.job_state import JobState
from app.lifecycle.identity import tag_of
from app.models.job import SlurmJob
from app.models.record import TaskRecord, utc_now
from app.models.task import (
    MonitorRequest,
    NotificationRequest,
    SubmitRequest,
    Task,
    WatchedTask,
    faults_of,
    parse,
)
from app.notification_plan import Catalogue, end_notifications, merged_params, undeliverable
from app.senders import SENDERS
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=BaseModel)


class Intake:
    """The use cases of `POST /submit` and `POST /monitor`."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        catalogue: Catalogue,
        *,
        methods: Collection[str],
        refused_users: Collection[str],
    ) -> None:
        self._store = store
        self._slurm = slurm
        self._catalogue = catalogue
        self._methods = methods
        self._context = {"catalogue": catalogue, "refused_users": refused_users}

    def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Reserves the uuid, submits one Slurm job as the task's user, and starts to watch it.

        InvalidRequest, DuplicateUuid, SlurmRefused, SlurmUnavailable: there is no new job.
        SlurmAmbiguous: there may be one; the reservation stays and is settled later.
        """
        task = self._parse(SubmitRequest, body, "task").task
        now = utc_now()
        record = TaskRecord(
            task=body["task"],
            slurm_username=task.username,
            created_at=now,
            updated_at=now,
            notifications=tuple(undeliverable(self._catalogue, task, self._methods, now)),
        )
        self._store.add(record)
        job_id, warnings = self._submit_once(task, record)
        warnings += [item.last_error for item in record.notifications if item.last_error]
        warnings += self._accept(task.uuid, job_id)
        answer = {"uuid": task.uuid, "slurm_job_id": job_id, "slurm_job_state": JobState.PENDING}
        return {**answer, "warnings": warnings} if warnings else answer

    def watch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Takes over a job that is in Slurm already; it must belong to the task's user."""
        request = self._parse(MonitorRequest, body, "monitor", "task").monitor
        job = self._slurm.job(request.slurm_job_id)
        if job is None:
            raise UnknownJob(f"monitor.slurm_job_id: Slurm knows no job {request.slurm_job_id}")
        if job.username != request.task.username:
            raise NotTheOwner(
                f"monitor.task.username: job {job.job_id} does not belong to {request.task.username}"
            )
        record = self._watched(body["monitor"]["task"], request.task, job)
        self._store.add(record)
        return record.public()

    def _watched(self, raw: dict[str, Any], task: WatchedTask, job: SlurmJob) -> TaskRecord:
        now = utc_now()
        record = TaskRecord(
            task=raw,
            slurm_username=task.username,
            slurm_job_id=job.job_id,
            slurm_job_state=job.job_state,
            created_at=now,
            updated_at=now,
            job=job,
            notifications=tuple(undeliverable(self._catalogue, task, self._methods, now)),
        )
        if record.is_open:
            return record
        due = end_notifications(self._catalogue, record, job, now)
        return record.model_copy(update={"notifications": (*record.notifications, *due)})

    def _submit_once(self, task: Task, record: TaskRecord) -> tuple[int, list[str]]:
        command = self._catalogue[task.name].command(task)
        tag = tag_of(task.uuid)
        try:
            return self._slurm.submit(task, command, tag)
        except (SlurmRefused, SlurmUnavailable, SlurmMisbehaved):
            self._store.release(task.uuid)
            raise
        except SlurmAmbiguous as error:
            logger.warning("submission of %s: %s; looking for its job", task.uuid, error)
            return self._adopted(task, record), []

    def _adopted(self, task: Task, record: TaskRecord) -> int:
        """The job that an ambiguous submission made after all; SlurmAmbiguous if it cannot be told now."""
        try:
            job = self._slurm.find_tagged(tag_of(task.uuid), task.username, record.created_at)
        except (SlurmUnavailable, SlurmMisbehaved):
            job = None
        if job is None:
            raise SlurmAmbiguous(
                f"it cannot be told yet whether Slurm took task {task.uuid}; "
                f"GET /monitor/task_uuid/{task.uuid} will tell, do not submit it again before"
            )
        return job.job_id

    def _accept(self, uuid: str, job_id: int) -> list[str]:
        try:
            self._store.accept(uuid, job_id, JobState.PENDING, utc_now())
        except StoreUnavailable:
            logger.exception("job %s of task %s runs, but its reservation stays for now", job_id, uuid)
            return ["the database did not answer; the record will be completed as soon as it does"]
        return []

    def _parse(self, model: type[_Request], body: Mapping[str, Any], *path: str) -> _Request:
        """The checked request; InvalidRequest lists the faults of the whole body at once."""
        faults = self._notification_faults(body, path)
        try:
            request = parse(model, body, context=self._context)
        except InvalidRequest as error:
            raise InvalidRequest([*error.faults, *faults]) from None
        if faults:
            raise InvalidRequest(faults)
        return request

    def _notification_faults(self, body: Any, path: Sequence[str]) -> list[str]:
        """What the senders say of their parameters, the catalogue's and the task's taken together."""
        for key in path:
            body = body.get(key) if isinstance(body, dict) else None
        if not isinstance(body, dict):
            return []
        try:
            wanted = NotificationRequest.model_validate(body.get("notification", {}))
        except ValidationError:
            return []  # listed with the faults of the body
        merged = merged_params(self._catalogue, body.get("name"), wanted)
        where = ".".join((*path, "notification", "params"))
        return [
            fault
            for method, params in merged.items()
            if method in SENDERS
            for fault in faults_of(SENDERS[method].Params, params, f"{where}.{method}")
        ]
