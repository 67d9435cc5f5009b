"""List tasks by filters, page by page: `GET /monitor` and `GET /monitor/slurm_job_state/...`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.access.authorization import require_scope
from app.close_matches import suggest_similar_word
from app.errors import InvalidRequest
from app.job_state import JobState
from app.lifecycle.covered_users import find_covered_users, require_one_scope
from app.lifecycle.responses import describe_record
from app.models.caller import Caller, Scope
from app.models.list_answers import StatePage, TaskList
from app.models.task_filter import MAX_LIMIT, MAX_UUIDS, TaskFilter, TaskQuery, parse_query
from app.models.task_summary import TaskSummary
from app.store.record_pages import RecordPages
from app.store.records import RecordStore

_PAGING = ("order", "limit", "after")  # the parameters that a query with uuids cannot have
_SUMMARY_SCOPES = (Scope.READ, Scope.MONITOR)

_Query = Mapping[str, Sequence[str]]  # the values of each parameter


class _Store(RecordStore, RecordPages, Protocol):
    """The parts of a store that lists need."""


class TaskListing:
    """The use cases of the lists. The states are those of the last polls; Slurm is not asked.

    A record that the caller may not read is treated as if it did not exist.
    """

    def __init__(self, store: _Store) -> None:
        """Create the use cases."""
        self._store = store

    def list_tasks(self, caller: Caller, query: _Query) -> TaskList:
        """Return a page of summaries, or the summaries for the uuids in the query.

        Raises:
            InvalidRequest: The query has faults; the error lists them.
            Forbidden: The caller may neither read tasks nor monitor.
        """
        require_one_scope(caller, _SUMMARY_SCOPES)
        wanted = self._parse(query)
        usernames = find_covered_users(self._store, caller, _SUMMARY_SCOPES, wanted)
        if wanted.uuid:
            if faults := [f"{name}: cannot be combined with uuid" for name in _PAGING if name in query]:
                raise InvalidRequest(faults)
            return self.find_tasks(caller, wanted)
        page = self._store.find_page(
            wanted, usernames, order=wanted.order, after=wanted.after, limit=wanted.limit
        )
        return TaskList(tasks=list(page.tasks), next=page.next)

    def find_tasks(self, caller: Caller, wanted: TaskFilter) -> TaskList:
        """Return the summaries of the filter's uuids in their order, and the uuids that are unknown.

        Summaries that do not meet the other conditions of the filter are left out.

        Raises:
            Forbidden: The caller may neither read tasks nor monitor.
        """
        only_uuids = TaskFilter(uuid=wanted.uuid)
        usernames = find_covered_users(self._store, caller, _SUMMARY_SCOPES, only_uuids)
        known = self._find_by_uuid(only_uuids, usernames)
        unknown = [uuid for uuid in dict.fromkeys(wanted.uuid) if uuid not in known]
        others = wanted.model_copy(update={"uuid": ()})
        meeting = known if others.is_empty else self._find_by_uuid(wanted, usernames)
        tasks = [meeting[uuid] for uuid in dict.fromkeys(wanted.uuid) if uuid in meeting]
        return TaskList(tasks=tasks, next=None, unknown=unknown)

    def list_by_state(self, caller: Caller, word: str, query: _Query) -> StatePage:
        """Return a page of the tasks in a state, with their whole records.

        Raises:
            InvalidRequest: The word is not a job state of Slurm, or the query has faults.
            Forbidden: The caller has no permission to read.
        """
        require_scope(caller, Scope.READ)
        if word not in JobState.__members__:
            meant = suggest_similar_word(
                word.upper(), JobState, "it must be a word such as PENDING or COMPLETED"
            )
            raise InvalidRequest([f"slurm_job_state: is not a job state of Slurm; {meant}"])
        if "state" in query:
            raise InvalidRequest(["state: must be left out; the path has the state"])
        wanted = self._parse({"limit": [str(MAX_LIMIT)], **query, "state": [word]})
        usernames = find_covered_users(self._store, caller, [Scope.READ], wanted)
        page = self._store.find_page(
            wanted, usernames, order=wanted.order, after=wanted.after, limit=wanted.limit
        )
        records = [describe_record(record) for record in self._store.find_records(page)]
        return StatePage(tasks=list(page.tasks), next=page.next, monitor=records)

    def _parse(self, query: _Query) -> TaskQuery:
        return parse_query(query, self._store.now())

    def _find_by_uuid(self, wanted: TaskFilter, usernames: Sequence[str] | None) -> dict[str, TaskSummary]:
        """Return the newest summary for each uuid: records of the older server may share one."""
        page = self._store.find_page(wanted, usernames, limit=2 * MAX_UUIDS)
        return {task.uuid: task for task in reversed(page.tasks)}
