"""Takes tasks in: submits new ones, and takes over jobs that were submitted elsewhere."""

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from app.errors import (
    DuplicateUuid,
    NotTheOwner,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyJobs,
    UnknownJob,
    UnprovenRefusal,
)
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.job_identity import tag_of, tagged
from app.lifecycle.reservations import Reservations, cannot_be_told, first_answer, stored_key
from app.lifecycle.responses import shown_record
from app.lifecycle.untagged_jobs import looks_like
from app.lifecycle.validation import Checker
from app.messages.plan import Plan, Planner
from app.models.caller import Caller, Scope
from app.models.job import SlurmJob
from app.models.record import RecordKind, TaskRecord
from app.models.task import Task, WatchedTask, near_misses
from app.slurm.client import SlurmClient
from app.slurm.reply import Reply
from app.store import TaskStore

logger = logging.getLogger(__name__)

_SHORTEST_LOOK = 1.0  # seconds; with less there is no sense in looking for a job
_ROOM_SECONDS = 60.0  # until it makes sense to ask again whether a job has ended
_REFUSED_BY_SITE = (
    "the site's submit rules (a job_submit plugin) may not allow it; ask the cluster's administrators"
)


class Intake:
    """The use cases of `POST /submit` and `POST /monitor`."""

    def __init__(
        self,
        store: TaskStore,
        slurm: SlurmClient,
        planner: Planner,
        checker: Checker,
        *,
        clocks: ClockGuard,
        submission_life: timedelta,
        most_in_flight: int = 0,
    ) -> None:
        """`most_in_flight`: tasks of one caller, 0 for any number."""
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._checker = checker
        self._most_in_flight = most_in_flight
        self._submission_life = submission_life
        self.reservations = Reservations(store, slurm, clocks)

    def submit(self, caller: Caller, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Reserve the uuid, submit one Slurm job as the task's user, and monitor it from then on.

        The same task again under the same `key` (or under its uuid as the key) gets the first answer.

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
        task = self._checker.submission(caller, body)
        now = self._store.now()
        record = TaskRecord(
            kind=RecordKind.SUBMITTED,
            task=body["task"],
            slurm_username=task.username,
            created_at=now,
            updated_at=now,
            idempotency_key=stored_key(caller.name, key) if key is not None else None,
            caller=caller.name,
        )
        record = _planned(record, self._planner.at_submission(record, now))
        if (first := self.reservations.reserve(record, key)) is not None:
            return first
        self._require_room(caller, record)
        job_id, warnings = self._submit_once(task, record)
        warnings += near_misses(task)
        warnings += [item.last_error for item in record.notifications if item.last_error]
        warnings += self.reservations.accept(record, job_id, warnings)
        return first_answer(record, job_id, warnings)

    def watch(self, caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
        """Takes over a job that is in Slurm already; it must belong to the task's user."""
        request = self._checker.watch(caller, body)
        job = self._slurm.job(request.slurm_job_id)
        if job is None or not caller.may(Scope.READ, job.username):
            raise UnknownJob(f"monitor.slurm_job_id: Slurm knows no job {request.slurm_job_id}")
        if job.username != request.task.username:
            raise NotTheOwner(
                f"monitor.task.username: job {job.job_id} does not belong to {request.task.username}"
            )
        record = self._watched(body["monitor"]["task"], request.task, job)
        record = record.model_copy(
            update={"caller": caller.name, "warnings": tuple(near_misses(request.task))}
        )
        try:
            self._store.add(record)
        except DuplicateUuid as error:
            raise self.reservations.taken(record) from error
        return shown_record(record)

    def pass_on(self, query: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """A body of slurmrestd's own, as the user that the query names; nothing is recorded.

        InvalidRequest for a query without a user, or with a user as whom no job runs.
        """
        return self._slurm.raw("POST", "job/submit", user=self._checker.run_as(query), json=body)

    def _watched(self, raw: dict[str, Any], task: WatchedTask, job: SlurmJob) -> TaskRecord:
        now = self._store.now()
        record = TaskRecord(
            kind=RecordKind.REGISTERED,
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
        command = self._planner.catalogue[task.name].command(task)
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
            return self._find_job(record, error, left), []

    def _find_job(self, record: TaskRecord, error: SlurmAmbiguous, seconds: float) -> int:
        """Return the id of the job that an ambiguous submission made.

        Raises:
            SlurmRefused: Slurm answered with an error without a reason, and slurmctld has no such job.
            SlurmAmbiguous: It is still not known whether there is a job.
        """
        if seconds <= _SHORTEST_LOOK:
            raise cannot_be_told(record.uuid)
        try:
            if isinstance(error, UnprovenRefusal):
                jobs = self._slurm.recent_jobs(record.created_at, timeout=seconds / 2)
            else:
                tags = [tag_of(record.uuid)]
                seen = self._slurm.search(
                    [record.slurm_username], record.created_at, tags, timeout=seconds / 2
                )
                jobs = seen.jobs()
        except (SlurmUnavailable, SlurmMisbehaved) as fault:
            logger.warning("task %s: %s", record.uuid, fault)
            raise cannot_be_told(record.uuid) from fault
        job = tagged(record, jobs)
        if job is not None:
            return job.array_job_id or job.job_id
        if isinstance(error, UnprovenRefusal) and not self._may_be_there(record, jobs):
            # slurmctld answered the submission before it was searched: it would have shown the job
            self.reservations.release(record)
            raise SlurmRefused(f"Slurm refused the job: {error}; {_REFUSED_BY_SITE}")
        raise cannot_be_told(record.uuid)

    def _may_be_there(self, record: TaskRecord, jobs: Iterable[SlurmJob]) -> bool:
        """Return whether a job without a tag may be the record's."""
        earliest = record.created_at - self._submission_life  # which is longer than any skew of clocks
        latest = record.created_at + 2 * self._submission_life
        return any(looks_like(record, job, earliest, latest) for job in jobs)

    def _require_room(self, caller: Caller, record: TaskRecord) -> None:
        """Raise TooManyJobs, and release the reservation, if the caller has too many open tasks.

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


def _planned(record: TaskRecord, plan: Plan) -> TaskRecord:
    notifications = (*record.notifications, *plan.notifications)
    return record.model_copy(update={"notifications": notifications, "alarm_at": plan.alarm_at})
