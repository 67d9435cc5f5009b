"""Look up records, and the present facts of their jobs: the routes `GET /monitor/...`."""

from collections.abc import Callable
from typing import Protocol

from app.access.authorization import require_scope
from app.errors import UnknownJob, UnknownTask
from app.job_state import JobState
from app.lifecycle.covered_users import find_covered_users
from app.lifecycle.present_facts import PresentFacts
from app.lifecycle.responses import describe_job, describe_record
from app.lifecycle.shared_status import LastPoll
from app.models.answers import Shown, SlurmFacts
from app.models.caller import Caller, Scope
from app.models.record import TaskRecord
from app.models.rules import parse_job_id
from app.models.task_filter import TaskFilter
from app.store.lineage import LineageStore
from app.store.records import RecordStore

_MAX_RESUBMISSIONS = 100  # of one task in an answer


class LookupStore(RecordStore, LineageStore, Protocol):
    """The part of a store that look-ups need."""


class TaskLookup:
    """The use cases of `GET /monitor/...`. Their load on Slurm does not grow with the number of callers.

    A record that the caller may not read is answered as if it did not exist. Thread-safe.
    """

    def __init__(
        self,
        store: LookupStore,
        facts: PresentFacts,
        find_last_poll: Callable[[], LastPoll | None] = lambda: None,
    ) -> None:
        """Create the use cases.

        Args:
            store: The store with the records.
            facts: Finds the present facts of open jobs.
            find_last_poll: Returns the last complete poll.
        """
        self._store = store
        self._facts = facts
        self._find_last_poll = find_last_poll

    def find_by_job_id(self, caller: Caller, text: str) -> Shown:
        """Return the newest record of a job id, and the facts of the job.

        Raises:
            InvalidRequest: `text` is no job id.
            UnknownJob: No record that the caller may read has this id.
            Forbidden: The caller has no permission to read.
        """
        poll = self._find_last_poll()
        return self._describe(caller, self.read_by_job_id(caller, text), poll)

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
        poll = self._find_last_poll()
        return self._describe(caller, self.read_by_uuid(caller, uuid), poll)

    def read_by_uuid(self, caller: Caller, uuid: str) -> TaskRecord:
        """Return the record with a uuid, without asking Slurm; raise as `find_by_uuid`."""
        require_scope(caller, Scope.READ)
        record = self._store.find_by_uuids([uuid]).get(uuid)
        if record is None or not caller.is_allowed(Scope.READ, record.slurm_username):
            raise UnknownTask(f"task_uuid: no task {uuid} is recorded here")
        return record

    def _describe(self, caller: Caller, record: TaskRecord, poll: LastPoll | None) -> Shown:
        shown = describe_record(record)
        if not record.never_resubmitted:
            uuids = self._list_resubmissions(caller, record.uuid)
            shown = shown.model_copy(update={"resubmitted_as": uuids})
        return Shown(slurm=self._describe_job(record, poll), monitor=shown)

    def _list_resubmissions(self, caller: Caller, uuid: str) -> list[str]:
        """Return the uuids of the newest resubmissions of a task that the caller may read."""
        newest = self._store.list_resubmissions(uuid, _MAX_RESUBMISSIONS)
        uuids = [task.uuid for task in newest if caller.is_allowed(Scope.READ, task.slurm_username)]
        if len(newest) == _MAX_RESUBMISSIONS > len(uuids):  # older ones may be readable
            usernames = find_covered_users(self._store, caller, [Scope.READ], TaskFilter())
            newest = self._store.list_resubmissions(uuid, _MAX_RESUBMISSIONS, usernames)
            uuids = [task.uuid for task in newest]
        return uuids

    def _describe_job(self, record: TaskRecord, poll: LastPoll | None) -> SlurmFacts:
        """Return the facts of the record's job.

        For a job that has ended these are the stored facts. While Slurm does not answer, they are the last
        known facts, marked as stale.
        """
        if record.slurm_job_id is None or not record.is_open:
            is_from_slurm = record.slurm_job_id is not None and record.slurm_job_state is not JobState.UNKNOWN
            return describe_job(record, record.job, record.updated_at if is_from_slurm else None)
        facts = self._facts.find(record, record.slurm_job_id, poll)
        shown = describe_job(record, facts.job, facts.as_of)
        if facts.error is not None:
            return shown.model_copy(update={"stale": True, "error": facts.error.for_callers})
        return shown if facts.job is not None else shown.model_copy(update={"job_state": facts.state})
