"""The list of job states, `jobs/state`, which slurmrestd offers from 24.05 on."""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import SlurmBusy, SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.outages import RepeatFilter
from app.slurm.answers import read_states, require_jobs
from app.slurm.id_chunks import MAX_IDS, IdChunks
from app.slurm.session import Session

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_OFFERED_AGAIN_AFTER = 60.0  # seconds until a missing list is asked for again


@dataclass(slots=True)
class States:
    """States of jobs. A job that is in `asked` and not in `named` is not in slurmctld.

    Attributes:
        asked: the ids that were asked for.
        named: the ids that were listed.
        states: the states by id; an array's id has the state of its waiting tasks, or of its last task.
        own_tasks: how many tasks were listed under the id of each array, which are those that wait.
        other_tasks: for each array, how many other tasks its request listed. They have ids of their own,
            and may belong to any array of the request.
    """

    asked: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    states: dict[int, JobState] = field(default_factory=dict)
    own_tasks: Counter[int] = field(default_factory=Counter)
    other_tasks: dict[int, int] = field(default_factory=dict)

    def add(self, chunk: Sequence[int], items: Sequence[Mapping[str, Any]]) -> None:
        """Add the answer to a request for some ids."""
        asked = set(chunk)
        self.asked |= asked
        listed = read_states(items)
        for job_id, state in listed:
            if job_id is None:  # it may stand for any id of the request
                self.named |= asked
                continue
            self.named.add(job_id)
            if state is not None:
                self.states[job_id] = state
        tasks = [
            job_id for item, (job_id, _) in zip(items, listed, strict=True) if "_" in str(item.get("job_id"))
        ]
        own_tasks = Counter(job_id for job_id in tasks if job_id in asked)
        self.own_tasks += own_tasks
        self.other_tasks |= dict.fromkeys(own_tasks, len(tasks) - own_tasks.total())

    @property
    def missing(self) -> set[int]:
        """Return the ids of the jobs that slurmctld does not know."""
        return self.asked - self.named

    @property
    def has_active(self) -> bool:
        """Return whether a job has not ended."""
        return any(not state.is_final for state in self.states.values())


class StateList:
    """Reader of job states in chunks; the states read before a failed request are kept.

    The next call asks for the ids of a failed request last, and for fewer at a time. So no failed request is
    repeated unchanged.
    """

    def __init__(self, session: Session) -> None:
        """Make a reader, which has no failed requests yet."""
        self._session = session
        self._requests = IdChunks()
        self._missing_since: float | None = None
        self._avoided: dict[int, None] = {}  # ids of requests that failed, the latest last
        self._avoided_per_request = MAX_IDS
        self._failed_alone: set[int] = set()  # ids of requests that failed with one id

    def is_offered(self) -> bool:
        """Return whether slurmrestd offers the list (24.05 and newer); a 404 counts for a minute."""
        since = self._missing_since
        is_missing = since is not None and time.monotonic() - since < _OFFERED_AGAIN_AFTER
        return self._session.dialect().has_state_list and not is_missing

    def read(self, job_ids: Collection[int]) -> States | None:
        """Return the states that could be read; None if the server has no list of states.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        if not self.is_offered():
            return None
        read = States()
        for chunk in self._chunks(job_ids):
            try:
                for ids, items in self._requests.ask(chunk, self._request):
                    if items is None:
                        return None
                    read.add(ids, items)
            except SlurmBusy:
                if not read.asked:
                    raise
                break
            except SlurmUnavailable as error:
                self._record_failure([job_id for job_id in chunk if job_id not in read.asked])
                if not read.asked:
                    raise
                logger.warning("%d of %d states were read: %s", len(read.asked), len(job_ids), error)
                break
            if not self._avoided.keys().isdisjoint(chunk):
                self._stop_avoiding(chunk)
                self._avoided_per_request = min(2 * self._avoided_per_request, MAX_IDS)
        return read

    def _request(self, job_ids: Sequence[int]) -> list[dict[str, Any]] | None:
        """Return the items of the list for some ids; None if the server has no list of states.

        Raises:
            SlurmUnavailable: The states could not be read.
        """
        reply = self._session.get("jobs/state", [("job_id", job_id) for job_id in job_ids])
        if reply.status == 404:
            self._missing_since = time.monotonic()
            return None
        return require_jobs(reply)

    def _chunks(self, job_ids: Collection[int]) -> Iterator[Sequence[int]]:
        """Yield the ids of each request; the ids of failed requests come last, and fewer at a time."""
        yield from self._requests.split([job_id for job_id in job_ids if job_id not in self._avoided])
        wanted = set(job_ids)
        avoided = [job_id for job_id in self._avoided if job_id in wanted]
        while avoided:
            chunk = next(self._requests.split(avoided))[: self._avoided_per_request]
            yield chunk
            avoided = avoided[len(chunk) :]

    def read_tasks(self, array_id: int, timeout: float | None) -> list[tuple[int | None, JobState | None]]:
        """Return the id and state of each task of one array; None if the array is unreadable.

        The list is empty if slurmctld does not know the array.

        Raises:
            SlurmUnavailable: The states could not be read.
        """
        return read_states(require_jobs(self._session.get("jobs/state", [("job_id", array_id)], timeout)))

    def keep_only(self, job_ids: Collection[int]) -> None:
        """Forget the failed requests of all other jobs, which are no longer polled."""
        self._failed_alone.intersection_update(job_ids)
        if self._avoided:
            wanted = set(job_ids)
            self._avoided = {job_id: None for job_id in self._avoided if job_id in wanted}

    def take_failed_alone(self) -> set[int]:
        """Return the ids whose states could not be read even alone, each once."""
        failed, self._failed_alone = self._failed_alone, set()
        return failed

    def _record_failure(self, chunk: Sequence[int]) -> None:
        """Avoid the ids of a failed request, and ask for fewer of them at a time."""
        self._stop_avoiding(chunk)
        self._avoided |= dict.fromkeys(chunk)
        self._failed_alone.update(chunk if len(chunk) == 1 else ())
        self._avoided_per_request = max(1, min(len(chunk), self._avoided_per_request) // 2)

    def _stop_avoiding(self, chunk: Sequence[int]) -> None:
        for job_id in chunk:
            self._avoided.pop(job_id, None)

    def read_all_ids(self, timeout: float | None) -> set[int] | None:
        """Return the ids of all jobs in slurmctld; None if the server has no list of states.

        Raises:
            SlurmMisbehaved: One of the ids cannot be read.
        """
        if not self.is_offered():
            return None
        reply = self._session.get("jobs/state", timeout=timeout)
        if reply.status == 404:
            self._missing_since = time.monotonic()
            return None
        ids = {job_id for job_id, _ in read_states(require_jobs(reply))}
        if None in ids:
            raise SlurmMisbehaved("slurmrestd lists a job whose id cannot be read")
        return {job_id for job_id in ids if job_id is not None}
