"""Cancel the tasks that a filter describes: `POST /monitor/cancel`."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from app.access.authorization import require_scope
from app.errors import CancellationBusy, InvalidRequest
from app.lifecycle.cancel_chunk import Chunk, ChunkCancellation, describe_outcome
from app.lifecycle.covered_users import find_covered_users
from app.models.bulk_cancellation import CancelledTask, CancelledTasks, CancelOutcome, CancelRequest
from app.models.caller import Caller, Scope
from app.models.record import TaskRecord
from app.models.task import parse_request
from app.models.task_filter import CONTEXT_KEY, TaskFilter
from app.slurm.client import SlurmClient
from app.store.record_pages import RecordPages
from app.store.records import RecordStore

_MAX_SEARCH_SECONDS = 10.0  # a filter that few records meet may take several pages
_MAX_SECONDS = 20.0  # after this time no further task is tried
_CHUNK = 50  # tasks; of one user
_CHUNK_SECONDS = 0.25  # that a chunk takes at least: 200 tasks a second


class _Store(RecordStore, RecordPages, Protocol):
    """The parts of a store that a bulk cancellation needs."""


class BulkCancellation:
    """The use case of `POST /monitor/cancel`. Each process cancels for one request at a time.

    slurmctld gets one request for each job, to see that the job is still that of the task, and one more for
    each 50 jobs of a user, or for each job up to v0.0.40.
    """

    def __init__(
        self,
        store: _Store,
        slurm: SlurmClient,
        refused_users: Collection[str] = (),
        *,
        max_tasks: int = 1000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Create the use case.

        Args:
            store: The records.
            slurm: The cluster.
            refused_users: Users whose jobs are never changed.
            max_tasks: How many tasks one request is for at most.
            clock: Seconds of a monotonic clock.
            sleep: Waits for so many seconds.
        """
        self._store = store
        self._chunks = ChunkCancellation(slurm, refused_users)
        self._max_tasks = max_tasks
        self._clock = clock
        self._sleep = sleep
        self._running = threading.Lock()

    def cancel_many(
        self, caller: Caller, body: Mapping[str, Any], *, is_dry_run: bool = False
    ) -> CancelledTasks:
        """Cancel the open tasks that meet a filter, of the users for whom the caller may cancel.

        One task that cannot be cancelled does not stop the others.

        Args:
            caller: The caller.
            body: The body of the request.
            is_dry_run: Whether to cancel none, whatever the body says.

        Raises:
            InvalidRequest: The body is not valid, or its filter has no condition.
            Forbidden: The caller has no permission to cancel.
            CancellationBusy: This process cancels for another request.
        """
        require_scope(caller, Scope.CANCEL)
        request = parse_request(CancelRequest, body, {CONTEXT_KEY: self._store.now()})
        records, cursor = self._find(caller, _select_open(request.filter), request.after)
        if is_dry_run or request.dry_run:
            listed = [describe_outcome(record, CancelOutcome.WOULD_BE_CANCELLED) for record in records]
            return CancelledTasks(tasks=listed, next=cursor, dry_run=True)
        with self._alone():
            return CancelledTasks(tasks=self._cancel(records), next=cursor, dry_run=False)

    def _find(
        self, caller: Caller, wanted: TaskFilter, after: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        """Return the records that meet the filter, and the cursor of those after them."""
        usernames = find_covered_users(self._store, caller, [Scope.CANCEL], wanted)
        ends = self._clock() + _MAX_SEARCH_SECONDS
        found: list[TaskRecord] = []
        while True:
            page = self._store.find_page(wanted, usernames, after=after, limit=self._max_tasks - len(found))
            found += self._store.find_records(page)
            after = page.next
            if after is None or len(found) >= self._max_tasks or self._clock() > ends:
                return found, after

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._running.acquire(blocking=False):
            raise CancellationBusy("another request is cancelling tasks; try again later")
        try:
            yield
        finally:
            self._running.release()

    def _cancel(self, records: Sequence[TaskRecord]) -> list[CancelledTask]:
        """Return the result for each record, in the order of the records."""
        ends = self._clock() + _MAX_SECONDS
        results: dict[int, CancelledTask] = {}
        for chunk in _split_by_user(records):
            began = self._clock()
            if began >= ends:
                break
            self._chunks.cancel(chunk, lambda: self._clock() >= ends)
            results |= chunk.results
            if chunk.slurm_is_away:
                break
            self._sleep(max(0.0, _CHUNK_SECONDS - (self._clock() - began)))
        return [
            results.get(index) or describe_outcome(record, CancelOutcome.NOT_TRIED)
            for index, record in enumerate(records)
        ]


def _select_open(wanted: TaskFilter) -> TaskFilter:
    """Return the filter for those of its tasks that have not ended.

    Raises:
        InvalidRequest: The filter has no condition, or only states of tasks that have ended.
    """
    if wanted.is_empty:
        raise InvalidRequest(["filter: must have at least one condition, such as state, name or since"])
    states = wanted.job_states
    if states is None or "open" in wanted.state:
        return wanted.model_copy(update={"state": ("open",)})
    still_open = tuple(sorted(state for state in states if not state.is_settled))
    if not still_open:
        words = "must include a state of tasks that have not ended, such as open, PENDING or RUNNING"
        raise InvalidRequest([f"filter.state: {words}"])
    return wanted.model_copy(update={"state": still_open})


def _split_by_user(records: Sequence[TaskRecord]) -> Iterator[Chunk]:
    """Yield the records in chunks of one user each."""
    indexes: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        indexes.setdefault(record.slurm_username, []).append(index)
    for of_user in indexes.values():
        for first in range(0, len(of_user), _CHUNK):
            yield Chunk({index: records[index] for index in of_user[first : first + _CHUNK]})
