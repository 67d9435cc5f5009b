"""Takes tasks in: submits new ones, and takes over jobs that were submitted elsewhere."""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.constants import Settings
from app.errors import (
    DuplicateUuid,
    InvalidRequest,
    NotTheOwner,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyJobs,
    UnknownJob,
)
from app.lifecycle.identity import tag_of, tagged
from app.lifecycle.permitting import require_scope, require_task
from app.lifecycle.reserving import Reservations, cannot_be_told, first_answer
from app.lifecycle.showing import shown_record
from app.messages.plan import Plan, Planner, each_recipient, merged_params
from app.models.caller import Caller, Scope
from app.models.job import SlurmJob
from app.models.notification_request import NotificationRequest
from app.models.record import TaskRecord, utc_now
from app.models.task import (
    MonitorRequest,
    RunAs,
    SubmitRequest,
    Task,
    WatchedTask,
    faults_of,
    parse,
)
from app.senders import SENDERS, Sender
from app.slurm.client import SlurmClient
from app.slurm.connection import Reply
from app.store import TaskStore

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=BaseModel)

_SHORTEST_LOOK = 1.0  # seconds; with less there is no sense in looking for a job
_ROOM_SECONDS = 60.0  # until it makes sense to ask again whether a job has ended
_MOST_BYTES = 256 * 1024  # of the parameters of an event's messages, each of which is kept


class Intake:
    """The use cases of `POST /submit` and `POST /monitor`."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        senders: Mapping[str, Sender],
        submission_life: timedelta,
        most_in_flight: int = 0,
        refused_users: Collection[str],
        settings: Settings | None = None,
    ) -> None:
        """`most_in_flight`: tasks of one caller, 0 for any number. `settings`: what notification parameters
        are held against, such as whom callers may write to."""
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self.catalogue = planner.catalogue
        self.refused_users = refused_users
        self._senders = senders
        self._most_in_flight = most_in_flight
        self._submission_life = submission_life
        self.reservations = Reservations(store, slurm)
        self._context = {
            "catalogue": planner.catalogue,
            "refused_users": refused_users,
            "methods": tuple(SENDERS),
            "settings": settings,
        }

    def submit(self, caller: Caller, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Reserves the uuid, submits one Slurm job as the task's user, and starts to watch it.

        The same task again under the same `key` (or under its uuid as the key) gets the first answer.
        InvalidRequest, Forbidden, TooManyJobs, DuplicateUuid, SlurmRefused, SlurmUnavailable: no job.
        SlurmAmbiguous: there may be one; the reservation stays and is settled later.
        """
        require_scope(caller, Scope.SUBMIT)
        task = self._parse(SubmitRequest, body, "task").task
        require_task(caller, task, self._receivers(task), "task")
        now = utc_now()
        record = TaskRecord(
            task=body["task"],
            slurm_username=task.username,
            created_at=now,
            updated_at=now,
            idempotency_key=f"{caller.name} {key}" if key is not None else None,
            caller=caller.name,
        )
        record = _planned(record, self._planner.at_submission(record, now))
        if (first := self.reservations.reserve(record, key)) is not None:
            return first
        self._require_room(caller, record)
        job_id, warnings = self._submit_once(task, record)
        warnings += [item.last_error for item in record.notifications if item.last_error]
        warnings += self.reservations.accept(record, job_id, warnings)
        return first_answer(record, job_id, warnings)

    def watch(self, caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
        """Takes over a job that is in Slurm already; it must belong to the task's user."""
        require_scope(caller, Scope.SUBMIT)
        request = self._parse(MonitorRequest, body, "monitor", "task").monitor
        require_task(caller, request.task, self._receivers(request.task), "monitor.task")
        job = self._slurm.job(request.slurm_job_id)
        if job is None or not caller.may(Scope.READ, job.username):
            raise UnknownJob(f"monitor.slurm_job_id: Slurm knows no job {request.slurm_job_id}")
        if job.username != request.task.username:
            raise NotTheOwner(
                f"monitor.task.username: job {job.job_id} does not belong to {request.task.username}"
            )
        record = self._watched(body["monitor"]["task"], request.task, job)
        record = record.model_copy(update={"caller": caller.name})
        try:
            self._store.add(record)
        except DuplicateUuid as error:
            raise self.reservations.taken(record) from error
        return shown_record(record)

    def pass_on(self, query: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """A body of slurmrestd's own, as the user that the query names; nothing is recorded.

        InvalidRequest for a query that names nobody, or one as whom nothing is run.
        """
        user = parse(RunAs, query, context=self._context).username
        return self._slurm.raw("POST", "job/submit", user=user, json=body)

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

    def _submit_once(self, task: Task, record: TaskRecord) -> tuple[int, list[str]]:
        command = self.catalogue[task.name].command(task)
        began = time.monotonic()
        try:
            return self._slurm.submit(
                task, command, tag_of(task.uuid), record.created_at + self._submission_life
            )
        except (SlurmRefused, SlurmUnavailable, SlurmMisbehaved):
            self.reservations.release(record)
            raise
        except SlurmAmbiguous as error:
            logger.warning("submission of %s: %s; looking for its job", task.uuid, error)
            left = self._slurm.longest_call - (time.monotonic() - began)
            return self._found(record, left), []

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
            raise cannot_be_told(record.uuid)
        return job.array_job_id or job.job_id

    def _require_room(self, caller: Caller, record: TaskRecord) -> None:
        """TooManyJobs, with the reservation given back, where the caller has as many tasks as he may.

        The reservation counts, so that of two requests at once not both find the last place free.
        """
        if not self._most_in_flight:
            return
        try:
            in_flight = self._store.count_open(caller.name)
        except StoreUnavailable:
            self.reservations.release(record)
            raise
        if in_flight > self._most_in_flight:
            self.reservations.release(record)
            words = f"{caller.name} has {self._most_in_flight} jobs waiting or running already"
            raise TooManyJobs(words, _ROOM_SECONDS)

    def _receivers(self, task: Task | WatchedTask) -> dict[str, list[str]]:
        """Whom the task's messages go to, by method; nothing is told of a method that has no sender."""
        return {
            method: [self._receiver_of(method, one) for one in each_recipient(params)]
            for method, params in merged_params(self.catalogue, task.name, task.notification).items()
        }

    def _receiver_of(self, method: str, params: Mapping[str, Any]) -> str:
        sender = self._senders.get(method)
        return sender.receiver(sender.Params.model_validate(params)) if sender else ""

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
            given = body.get("notification", {})
            named = {name: given[name] for name in ("methods", "params") if name in given}
            wanted = NotificationRequest.model_validate(named, context=self._context)
        except (ValidationError, TypeError):
            return []  # listed with the faults of the body
        merged = merged_params(self.catalogue, body.get("name"), wanted)
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
