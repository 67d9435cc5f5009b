"""Look up records, and the present facts of their jobs: the routes `GET /monitor/...`."""

import threading
from datetime import datetime
from typing import Any, Protocol

from cachetools import TTLCache, cached

from app.access.authorization import require_scope
from app.errors import (
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmUnavailable,
    UnknownJob,
    UnknownTask,
)
from app.job_state import JobState
from app.lifecycle.job_identity import is_same_job, to_open_job
from app.lifecycle.responses import describe_job, describe_record
from app.models.answers import Shown, SlurmFacts
from app.models.caller import Caller, Scope
from app.models.job import SlurmJob
from app.models.record import TaskRecord, utc_now
from app.models.rules import parse_job_id
from app.slurm.client import SlurmClient
from app.store.lineage import LineageStore
from app.store.records import RecordStore

_CACHE_SECONDS = 2.0  # for which an answer of Slurm is given to all callers
_MAX_CACHED_JOBS = 10_000
_MAX_RESUBMISSIONS = 100  # of one task in an answer


class LookupStore(RecordStore, LineageStore, Protocol):
    """The part of a store that look-ups need."""


class TaskLookup:
    """The use cases of `GET /monitor/...`. Many callers that ask for a job at once cost Slurm one request.

    A record that the caller may not read is answered as if it did not exist. Thread-safe.
    """

    def __init__(self, store: LookupStore, slurm: SlurmClient) -> None:
        """Create the use cases."""
        self._store = store
        self._slurm = slurm
        cache: TTLCache[Any, tuple[SlurmJob | SlurmProxyError | None, datetime]] = TTLCache(
            _MAX_CACHED_JOBS, ttl=_CACHE_SECONDS
        )
        self._read_job = cached(cache, condition=threading.Condition())(self._read_job_uncached)

    def find_by_job_id(self, caller: Caller, text: str) -> Shown:
        """Return the newest record of a job id, and the facts of the job.

        Raises:
            InvalidRequest: `text` is no job id.
            UnknownJob: No record that the caller may read has this id.
            Forbidden: The caller has no permission to read.
        """
        return self._describe(caller, self.read_by_job_id(caller, text))

    def read_by_job_id(self, caller: Caller, text: str) -> TaskRecord:
        """Return the newest record with a job id, without asking Slurm; raise as `find_by_job_id`."""
        require_scope(caller, Scope.READ)
        job_id = parse_job_id("slurm_job_id", text)
        record = self._store.find_by_job_id(job_id)
        if record is None or not caller.is_allowed(Scope.READ, record.slurm_username):
            raise UnknownJob(f"slurm_job_id: no job {job_id} is monitored here")
        return record

    def find_by_uuid(self, caller: Caller, uuid: str) -> Shown:
        """Return the record of a uuid, and the facts of its job.

        Raises:
            UnknownTask: No record that the caller may read has this uuid.
            Forbidden: The caller has no permission to read.
        """
        return self._describe(caller, self.read_by_uuid(caller, uuid))

    def read_by_uuid(self, caller: Caller, uuid: str) -> TaskRecord:
        """Return the record with a uuid, without asking Slurm; raise as `find_by_uuid`."""
        require_scope(caller, Scope.READ)
        record = self._store.find_by_uuids([uuid]).get(uuid)
        if record is None or not caller.is_allowed(Scope.READ, record.slurm_username):
            raise UnknownTask(f"task_uuid: no task {uuid} is recorded here")
        return record

    def _describe(self, caller: Caller, record: TaskRecord) -> Shown:
        newest = self._store.list_resubmissions(record.uuid, _MAX_RESUBMISSIONS)
        uuids = [task.uuid for task in newest if caller.is_allowed(Scope.READ, task.slurm_username)]
        shown = describe_record(record).model_copy(update={"resubmitted_as": uuids})
        return Shown(slurm=self._describe_job(record), monitor=shown)

    def _describe_job(self, record: TaskRecord) -> SlurmFacts:
        """Return the facts of the record's job.

        For a job that has ended these are the stored facts. While Slurm does not answer, they are the last
        known facts, marked as stale.
        """
        is_from_slurm = record.slurm_job_id is not None and record.slurm_job_state is not JobState.UNKNOWN
        stored = describe_job(record, record.job, record.updated_at if is_from_slurm else None)
        if record.slurm_job_id is None or not record.is_open:
            return stored
        job, as_of = self._read_job(record.slurm_job_id)
        if isinstance(job, SlurmProxyError):
            return stored.model_copy(update={"stale": True, "error": job.for_callers})
        if not is_same_job(to_open_job(record, record.slurm_job_id), job):
            return describe_job(record, None, as_of).model_copy(update={"job_state": JobState.UNKNOWN})
        return describe_job(record, job, as_of)

    def _read_job_uncached(self, job_id: int) -> tuple[SlurmJob | SlurmProxyError | None, datetime]:
        """Return the job, or the error of the request, and the time of the answer.

        An error is cached like a job, so that the requests that wait for it do not try one after another.
        """
        try:
            return self._slurm.find_job(job_id), utc_now()
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            return error, utc_now()
