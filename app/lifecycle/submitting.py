"""Takes tasks in: submits new ones, and takes over jobs that were submitted elsewhere."""

import json
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.constants import Settings
from app.errors import (
    DuplicateUuid,
    IdempotencyKeyReused,
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
from app.lifecycle.identity import tag_of, tagged
from app.lifecycle.showing import shown_record
from app.messages.plan import Plan, Planner, merged_params
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
from app.senders import SENDERS
from app.slurm.client import SlurmClient
from app.store import TaskStore

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=BaseModel)


_SHORTEST_LOOK = 1.0  # seconds; with less there is no sense in looking for a job
_SHORT_LOOK = 1.0  # seconds that the store may take while Slurm is down anyway
_MOST_BYTES = 256 * 1024  # of the parameters of an event's messages, each of which is kept
_RESERVATIONS = 5  # times that a uuid is tried which others are giving back


class Intake:
    """The use cases of `POST /submit` and `POST /monitor`."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        submission_life: timedelta,
        refused_users: Collection[str],
        settings: Settings | None = None,
    ) -> None:
        """`settings`: what notification parameters are held against, such as whom callers may write to."""
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._catalogue = planner.catalogue
        self._submission_life = submission_life
        self._unrecorded: deque[tuple[TaskRecord, int, tuple[str, ...]]] = deque()
        self._context = {
            "catalogue": planner.catalogue,
            "refused_users": refused_users,
            "methods": tuple(SENDERS),
            "settings": settings,
        }

    def submit(self, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Reserves the uuid, submits one Slurm job as the task's user, and starts to watch it.

        The same task again under the same `key` (or under its uuid as the key) gets the first answer.
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
            idempotency_key=key,
        )
        record = _planned(record, self._planner.at_submission(record, now))
        if (first := self._reserve(record)) is not None:
            return first
        job_id, warnings = self._submit_once(task, record)
        warnings += [item.last_error for item in record.notifications if item.last_error]
        return _answer(record, job_id, warnings + self._accept(record, job_id, warnings))

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
        return shown_record(record)

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
        )
        record = _planned(record, self._planner.at_submission(record, now))
        return record if record.is_open else _planned(record, self._planner.at_look(record, job, now))

    def _reserve(self, record: TaskRecord) -> dict[str, Any] | None:
        """Puts the intent on disk; or the first answer, where the same request with its key came before.

        DuplicateUuid, IdempotencyKeyReused, SlurmAmbiguous: the uuid or the key is taken already.
        While Slurm is known to be down nothing is put on disk.
        """
        try:
            self._slurm.check()
        except SlurmUnavailable:
            owner = self._owner(record, within=_SHORT_LOOK)
            if owner is None or owner.submission_error is not None:
                raise
            return self._first_answer(record, owner)
        for _ in range(_RESERVATIONS):
            try:
                self._store.add(record)
            except DuplicateUuid:
                if (owner := self._owner(record)) is not None:
                    return self._first_answer(record, owner)
                continue  # whoever had it has just given it back
            return None
        raise StoreUnavailable("others come and go with the same uuid; try again")

    def _owner(self, record: TaskRecord, within: float | None = None) -> TaskRecord | None:
        """The record that stands in the way of this one: by its key, else by its uuid."""
        key = record.idempotency_key
        by_key = self._store.by_idempotency_key(key, within) if key is not None else None
        return by_key or self._store.by_uuids([record.uuid], within).get(record.uuid)

    def _first_answer(self, record: TaskRecord, first: TaskRecord) -> dict[str, Any]:
        """What the first request was answered, if this one is the same and says so by its key."""
        key = record.idempotency_key
        if key is None or key not in (first.idempotency_key, first.uuid):
            raise DuplicateUuid(record.uuid, first.slurm_job_id)
        if _canonical(first.task) != _canonical(record.task):
            raise IdempotencyKeyReused(f"Idempotency-Key: {key} came first with another task")
        if first.slurm_job_id is not None:
            return _answer(first, first.slurm_job_id, first.warnings)
        if first.is_reserved:
            raise _cannot_be_told(first.uuid)
        raise DuplicateUuid(record.uuid, None)

    def _submit_once(self, task: Task, record: TaskRecord) -> tuple[int, list[str]]:
        command = self._catalogue[task.name].command(task)
        began = time.monotonic()
        try:
            return self._slurm.submit(
                task, command, tag_of(task.uuid), record.created_at + self._submission_life
            )
        except (SlurmRefused, SlurmUnavailable, SlurmMisbehaved):
            self._release(record)
            raise
        except SlurmAmbiguous as error:
            logger.warning("submission of %s: %s; looking for its job", task.uuid, error)
            left = self._slurm.longest_call - (time.monotonic() - began)
            return self._found(record, left), []

    def _release(self, record: TaskRecord) -> None:
        try:
            self._store.release(record)
        except StoreUnavailable as error:  # the caller is told what matters; the rest is settled later
            logger.warning("task %s made no job, but its reservation stays for now: %s", record.uuid, error)

    def _found(self, record: TaskRecord, seconds: float) -> int:
        """The job that an ambiguous submission made after all; SlurmAmbiguous if it cannot be told now."""
        job = None
        if seconds > _SHORTEST_LOOK:
            try:
                seen = self._slurm.search([record.slurm_username], record.created_at, timeout=seconds / 2)
                job = tagged(record, seen.jobs())
            except (SlurmUnavailable, SlurmMisbehaved) as error:
                logger.warning("task %s: %s", record.uuid, error)
        if job is None:
            raise _cannot_be_told(record.uuid)
        return job.array_job_id or job.job_id

    def _accept(self, record: TaskRecord, job_id: int, warnings: Sequence[str]) -> list[str]:
        try:
            self._store.accept(record, job_id, JobState.PENDING, utc_now(), warnings)
        except StoreUnavailable as error:
            logger.warning("job %s of task %s runs, but is not recorded yet: %s", job_id, record.uuid, error)
            self._unrecorded.append((record, job_id, tuple(warnings)))
            return ["the database did not answer; the record will be completed as soon as it does"]
        return []

    def record_late(self) -> None:
        """Completes the records of jobs that the store could not keep at the time; StoreUnavailable still."""
        for _ in range(len(self._unrecorded)):
            record, job_id, warnings = self._unrecorded[0]
            self._store.accept(record, job_id, JobState.PENDING, utc_now(), warnings)
            logger.info("job %s of task %s is recorded now", job_id, record.uuid)
            self._unrecorded.popleft()

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
            wanted = NotificationRequest.model_validate(body.get("notification", {}), context=self._context)
        except ValidationError:
            return []  # listed with the faults of the body
        merged = merged_params(self._catalogue, body.get("name"), wanted)
        where = ".".join((*path, "notification", "params"))
        faults = [
            fault
            for method, params in merged.items()
            for fault in faults_of(SENDERS[method].Params, params, f"{where}.{method}", self._context)
        ]
        size = sum(_recipients(params) * len(json.dumps(params)) for params in merged.values())
        if size > _MOST_BYTES:
            faults.append(f"{where}: all messages together must not take more than {_MOST_BYTES} bytes")
        return faults


def _recipients(params: Mapping[str, Any]) -> int:
    """How often the parameters are kept: once for each."""
    recipients = params.get("recipient")
    return len(recipients) if isinstance(recipients, list) else 1


def _planned(record: TaskRecord, plan: Plan) -> TaskRecord:
    notifications = (*record.notifications, *plan.notifications)
    return record.model_copy(update={"notifications": notifications, "alarm_at": plan.alarm_at})


def _answer(record: TaskRecord, job_id: int, warnings: Sequence[str]) -> dict[str, Any]:
    answer = {"uuid": record.uuid, "slurm_job_id": job_id, "slurm_job_state": JobState.PENDING}
    return {**answer, "warnings": list(warnings)} if warnings else answer


def _canonical(task: Mapping[str, Any]) -> str:
    """Equal for equal tasks only: to Python, true and 1 and 1.0 are equal, too."""
    return json.dumps(task, sort_keys=True)


def _cannot_be_told(uuid: str) -> SlurmAmbiguous:
    return SlurmAmbiguous(
        f"it cannot be told yet whether Slurm took task {uuid}; GET /monitor/task_uuid/{uuid} will tell, "
        "do not submit it under another uuid before"
    )
